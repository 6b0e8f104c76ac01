"""Fisher and least squares on VAD: its own attentions, FFNs and branches, by its own losses."""

from copy import deepcopy

import pytest
import tiny_vad as tiny
import torch
from cases import random_state
from vad_unit_cases import BY_NAME, HEAD, TRANSFORMER

from projects.prune_plugin import StructuredPruner, UserError, mask, slim
from projects.prune_plugin.calibration.data import CalibrationData
from projects.prune_plugin.calibration.layer_inputs import input_rows, weight_matrix
from projects.prune_plugin.calibration.loss import mmengine_loss
from projects.prune_plugin.methods.compensation import LeastSquares

UNITS = [
    dict(type='AttentionHeads'), dict(type='FFNNeurons'), dict(type='BranchNeurons'),
    dict(type='DeformableHeads'), dict(type='SamplingPoints'), dict(type='FPNChannels'),
    dict(type='BottleneckChannels'),
]  # fmt: skip


def frame_sample(index: int) -> dict:
    frames = tiny.relative([tiny.frame(0), tiny.frame(index + 1)])
    inputs = dict(img=tiny.images(1, 2, seed=index)[0])
    return dict(inputs=inputs, data_samples=tiny.sample(frames, truth=True, index=index))


def data(settings=None) -> CalibrationData:
    return CalibrationData(dict(dataset=[frame_sample(i) for i in range(2)]), 2, 1, seed=0)


class Watched(LeastSquares):
    """Notes how far each reader's output is off, by plain removal and after refitting."""

    def refit_layers(self, model, layers, inputs, kept, shifts):
        modules = {path: model.get_submodule(path) for path in layers}
        rows = torch.cat([input_rows(modules[layers[0]], x) for x in inputs])
        old = {path: deepcopy(module) for path, module in modules.items()}
        count = super().refit_layers(model, layers, inputs, kept, shifts)
        for path, module in modules.items():
            lost = rows @ (weight_matrix(old[path]) * ~kept[path]).T
            left = rows @ (weight_matrix(old[path]) - weight_matrix(module)).T
            if module.bias is not None:
                left = left + old[path].bias - module.bias
            self.errors[path] = float(lost.norm()), float(left.norm())
        return count


@pytest.fixture(scope='module')
def compensated():
    """The tiny model before and after, half of all units gone; and what the readers were off."""
    dense = BY_NAME['all-his'].dense()
    groups, _ = StructuredPruner(UNITS).discover(dense)
    state, method, model = random_state(groups, 'half'), Watched(), deepcopy(dense)
    method.errors = {}
    changed = method.apply(model, state, data(), mmengine_loss)
    return dense, model, state, method.errors, changed


def test_fisher_scores_every_kind_that_is_read():
    dense = BY_NAME['all-his'].dense()
    units = [unit for unit in UNITS if unit['type'] != 'SamplingPoints']
    pruner = StructuredPruner(units, dict(type='Fisher'), calibration=dict(batch_size=1))
    groups, _ = pruner.discover(dense)
    kinds = {'attention', 'deformable', 'mlp', 'branch', 'channel'}
    assert {group.kind for group in groups} == kinds
    for group, score in zip(groups, pruner.scores(dense, groups, data), strict=True):
        assert bool(score.isfinite().all()) and float(score.max()) > 0, group.name
    with pytest.raises(UserError, match='Fisher cannot score .*: nothing reads a point as input'):
        StructuredPruner(UNITS, dict(type='Fisher')).plan(dense, data)


def test_attentions_ffns_branches_and_convolutions_are_refitted(compensated):
    _, _, state, errors, changed = compensated
    encoder = f'{TRANSFORMER}.encoder.layers.0'
    for path in (
        f'{encoder}.attentions.0.output_proj', f'{encoder}.attentions.1.output_proj',
        f'{encoder}.ffns.0.layers.1', f'{TRANSFORMER}.decoder.layers.0.attentions.0.attn.out_proj',
        f'{TRANSFORMER}.decoder.layers.0.ffns.0.layers.1', 'img_backbone.layer3.0.conv2',
        'img_neck.fpn_convs.0.conv', f'{HEAD}.reg_branches.0.2',
    ):  # fmt: skip
        assert path in errors and f'{path}.weight' in changed, path
    for path, (plain, new) in errors.items():
        assert new < plain or plain < 1e-3, path
    normed = [g.name for g in state.reduced if any('SlimLayerNorm' in c for c in g.converts)]
    assert normed and not any(f'{HEAD}.cls_branches.0.0' in path for path in errors)


def test_masked_and_slim_are_still_the_same(compensated):
    _, model, state, _, _ = compensated
    case = BY_NAME['all-his']
    expected = case.run_masked(mask(deepcopy(model), state), state)
    found = case.run(slim(deepcopy(model), state))
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 1e-4 * scale


def test_nothing_else_has_changed(compensated):
    dense, model, state, _, changed = compensated
    sliced = {c.name for g in state.reduced for c in g.cuts}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, dense.state_dict()[name]) or name in {*changed, *sliced}, name


def test_beside_queries_that_go():
    """They are hidden in the pass, and leave no flag behind that the slim model would trip over."""
    case = BY_NAME['all']
    state = case.state('half')
    assert {'object_query', 'map_query', 'motion_mode'} <= {g.kind for g in state.reduced}
    model = case.dense()
    changed = LeastSquares().apply(model, state, data(), mmengine_loss)
    fused = f'{HEAD}.agent_fus_mlp.0'
    assert changed and not any(name.startswith(fused) for name in changed)
    expected = case.run_masked(mask(deepcopy(model), state), state)
    slimmed = slim(deepcopy(model), state)
    found = case.run(slimmed)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert slimmed.state_dict().keys() == slim(case.dense(), state).state_dict().keys()
