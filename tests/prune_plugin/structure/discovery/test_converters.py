"""What stands in for modules that discovered units cut: norms, experts, methods that reshape."""

import copy

import pytest
import torch
from small_modules import MODULES
from test_discovery import outputs, planned, stirred, worst
from torch import nn

from projects.prune_plugin import PruneState, UserError, mask, slim
from projects.prune_plugin.structure.modules import CONVERTERS, converter_of
from projects.prune_plugin.structure.modules.inferred_sizes import parse, spec


def converters(state: PruneState) -> set[str]:
    """The kinds of converters in a state."""
    found = {name for group in state.groups.values() for _, name in group.converts}
    return {name.partition(':')[0] for name in found}


class RootMeanSquare(nn.Module):
    """A norm as Hugging Face's models have them; the name says what it is."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden_states):
        x = hidden_states.float() if hidden_states.dtype != torch.float64 else hidden_states
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class NormedMLP(nn.Module):
    """A norm over the hidden width."""

    def __init__(self):
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(24, 40), self.kind(40), nn.Linear(40, 24)

    kind = type('MyRMSNorm', (RootMeanSquare,), {})

    def forward(self, x):
        return x + self.down(self.norm(self.up(x).relu()))


def test_rms_norms_count_removed_features_as_zeros():
    torch.manual_seed(0)
    model, x = stirred(NormedMLP()).eval(), torch.randn(2, 5, 24)
    state = planned(model, x, 0.5).state
    assert converters(state) == {'SlimRMSNorm'}
    slimmed, masked = slim(copy.deepcopy(model), state), mask(copy.deepcopy(model), state)
    assert slimmed.norm.weight.shape == (20,)
    assert slimmed.state_dict().keys() == model.state_dict().keys()
    assert repr(slimmed.norm) == 'SlimMyRMSNorm(20 of 40)'
    assert worst(outputs(slimmed, x), outputs(masked, x)) < 1e-9
    again = copy.deepcopy(slimmed)
    assert CONVERTERS['SlimRMSNorm'](again.norm) is again.norm
    assert torch.equal(outputs(again, x), outputs(slimmed, x))


def test_experts_of_any_width_run():
    """Where the kernel for all experts takes multiples of 16 bytes: in sets of eight, or one by one."""
    transformers = pytest.importorskip('transformers')
    config = transformers.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(config).eval()
    ids = torch.randint(0, 64, (1, 12))
    state = planned(model, dict(input_ids=ids), 0.3, include=['.*experts']).state
    assert converters(state) == {'EagerExperts'}
    state = PruneState.from_dict(state.to_dict())
    slimmed, masked = slim(copy.deepcopy(model), state), mask(copy.deepcopy(model), state)
    with torch.no_grad():
        one, other = slimmed(ids, use_cache=False).logits, masked(ids, use_cache=False).logits
    assert torch.allclose(one, other, 1e-4, 1e-6)
    assert model.config._experts_implementation != 'eager'
    assert slimmed.generate(ids, max_new_tokens=2, do_sample=False).shape == (1, 14)
    wide = transformers.MixtralConfig(**{**config.to_dict(), 'intermediate_size': 64})
    whole = transformers.MixtralForCausalLM(wide).eval()
    groups = planned(whole, dict(input_ids=ids), 0.3, include=['.*experts']).groups
    assert [(group.size, group.converts) for group in groups] == [(8, ())] * 2


# Sizes in the code of a method


def test_the_name_of_a_converter_says_which_size():
    assert spec('forward', [(0, 3), (1, 2)]) == 'InferredSizes:forward:0.3,1.2'
    assert parse('InferredSizes:forward:0.3,1.2') == ('forward', [(0, 3), (1, 2)])
    for wrong in (
        'InferredSizes:forward:',
        'InferredSizes:a b:0.1',
        'InferredSizes:f:1',
        'SkipLayer',
        'x',
    ):
        assert parse(wrong) is None
    assert converter_of('InferredSizes:forward:0.3') and converter_of('SkipLayer')
    assert converter_of('InferredSizes:forward:x') is None


def test_a_converter_from_a_file_is_checked():
    build, make_input = MODULES['ChunkedAttention']
    torch.manual_seed(0)
    model = stirred(build()).eval()
    data = planned(model, make_input()).state.to_dict()
    (group,) = data['groups'].values()
    for name in (
        'InferredSizes:forward:9.9',
        'InferredSizes:train:0.0',
        'InferredSizes:missing:0.0',
    ):
        group['converts'] = [['', name]]
        with pytest.raises(UserError, match='ChunkedAttention is not the class that was pruned'):
            slim(copy.deepcopy(model), PruneState.from_dict(data))
    group['converts'] = [['', 'InferredSizes:__import__("os"):0.0']]
    with pytest.raises(UserError, match='no converter'):
        PruneState.from_dict(data)


def test_other_models_of_the_class_stay_as_they_are():
    build, make_input = MODULES['ChunkedAttention']
    torch.manual_seed(0)
    model, x = stirred(build()).eval(), make_input()
    other = build().eval()
    before = other(x)
    slimmed = slim(copy.deepcopy(model), planned(model, x).state)
    assert type(slimmed).__name__ == 'SlimChunkedAttention' and isinstance(slimmed, build)
    assert type(model) is build and torch.equal(other(x), before)
