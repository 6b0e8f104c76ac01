"""Activation: the size of what a unit puts out, against hooks of the test's own."""

import pytest
import torch
from cases import BY_NAME
from test_criteria import statistics_of

from projects.prune_plugin import UserError
from projects.prune_plugin.methods.criteria import Activation
from projects.prune_plugin.structure.unit_group import named_tensors


@pytest.mark.parametrize('norm', ['l1', 'l2'])
def test_mean_over_samples_places_and_features(norm):
    case = BY_NAME['vit']
    model, groups = case.dense(), case.groups()
    seen: dict[str, list] = {}
    for name, module in model.named_modules():
        if name.endswith(('attn.proj', 'mlp.fc2')):
            module.register_forward_pre_hook(
                lambda m, args, name=name: seen.setdefault(name, []).append(args[0].double())
            )
    statistics = statistics_of('vit', model, ['activations'], groups)
    scores = Activation(norm).scores(groups, named_tensors(model), statistics)
    assert len(groups) == 6
    for group, score in zip(groups, scores, strict=True):
        reader = next(cut.name for cut in group.cuts if cut.side == 'out')
        read = torch.cat([x.flatten(0, -2) for x in seen[reader.rpartition('.')[0]]])
        units = read.view(len(read), group.size, -1)
        if norm == 'l1':
            expected = units.abs().mean((0, 2))
        else:
            expected = units.square().mean((0, 2)).sqrt()
        assert torch.allclose(score, expected.detach(), rtol=1e-6)


def test_whole_layers_have_no_reader():
    with pytest.raises(UserError, match='Activation cannot score .* nothing reads a layer'):
        Activation().check(BY_NAME['vit-layers'].groups())


def test_norm_is_checked():
    with pytest.raises(UserError, match='norm is .l3.; valid are l1, l2'):
        Activation('l3')
