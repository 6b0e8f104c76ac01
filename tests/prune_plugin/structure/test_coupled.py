"""Coupled channels where indices are not one to one: depthwise, concatenation, flattening."""

import copy

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner, mask, slim
from projects.prune_plugin.structure.prune_state import PruneState


class Mixed(nn.Module):
    """A depthwise branch and a plain one, concatenated, then flattened into a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(3, 6, 1)
        self.mix = nn.Conv2d(14, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        y = self.mix(torch.cat([left, self.branch(x)], 1).relu())
        return self.head(self.pool(y).flatten(1))


class Features(Mixed):
    """Hands the mixed channels out as well: whoever reads them counts on their number."""

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        y = self.mix(torch.cat([left, self.branch(x)], 1).relu())
        return y, self.head(self.pool(y).flatten(1))


def pruner(**kwargs):
    units = [dict(type='CoupledChannels', input_shape=(3, 8, 8), **kwargs)]
    return build_pruner(dict(units=units, budget=dict(type='units', ratio=0.5)))


def build(cls):
    torch.manual_seed(0)
    model = cls().eval()
    for buffer in (model.norm.running_mean, model.norm.running_var):
        buffer.uniform_(0.5, 1.5)
    return model


def test_masked_equals_slim_with_depthwise_and_concatenation():
    model, x = build(Mixed), torch.randn(2, 3, 8, 8)
    state = pruner().plan(model).state
    assert {g.name: g.size for g in state.groups.values()} == {'stem': 8, 'branch': 6, 'mix': 4}
    left = {name: len(kept) for name, kept in state.kept.items()}
    masked = mask(copy.deepcopy(model), state)(x)
    cut = slim(copy.deepcopy(model), PruneState.from_dict(state.to_dict()))
    assert torch.allclose(cut(x), masked, atol=1e-5 * float(masked.detach().abs().max()))
    assert cut.depthwise.groups == cut.depthwise.in_channels == left['stem']
    assert cut.mix.weight.shape[:2] == (left['mix'], left['stem'] + left['branch'])
    assert cut.head.in_features == 16 * left['mix']


def test_pruning_one_branch_and_then_the_other_composes():
    from projects.prune_plugin import compose

    model, x = build(Mixed), torch.randn(2, 3, 8, 8)
    unit = [dict(type='CoupledChannels', input_shape=(3, 8, 8))]
    half = dict(units=unit, budget=dict(type='units', ratio=0.5))
    first = build_pruner(dict(half, include=['stem'])).plan(model).state
    once = slim(copy.deepcopy(model), first)
    second = build_pruner(dict(half, include=['branch'])).plan(once).state
    twice = slim(copy.deepcopy(once), second)
    direct = slim(copy.deepcopy(model), compose(first, second))
    assert torch.equal(direct.mix.weight, twice.mix.weight)
    assert torch.equal(direct(x), twice(x))


def test_channels_that_leave_the_model_stay():
    plan = pruner().plan(build(Features))
    assert {group.name for group in plan.groups} == {'stem', 'branch'}
    assert plan.refused['mix'] == plan.refused['head'] == 'it is an output of the model'


def test_channels_that_leave_the_traced_part_stay():
    whole = nn.Sequential(build(Mixed), nn.Linear(5, 2))
    plan = pruner(submodule='0').plan(whole)
    assert '0.head' in plan.refused and {g.name for g in plan.groups} == {
        '0.stem',
        '0.branch',
        '0.mix',
    }


def test_bad_arguments_are_named():
    with pytest.raises(UserError, match='input_shape is 3'):
        build_pruner(dict(units=[dict(type='CoupledChannels', input_shape=3)]))
    with pytest.raises(UserError, match="submodule 'body' is not in the model"):
        pruner(submodule='body').plan(build(Mixed))


class Flattened(Mixed):
    """Flattens concatenated channels: a channel is 16 columns of the head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(14 * 16, 5)

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        return self.head(self.pool(torch.cat([left, self.branch(x)], 1)).flatten(1))


class Looped(Mixed):
    """Adds a convolution of both branches to what it read: its channels are those of two layers."""

    def __init__(self):
        super().__init__()
        self.loop = nn.Conv2d(14, 14, 1)

    def forward(self, x):
        left = self.norm(self.depthwise(self.stem(x)))
        y = self.loop(self.loop(torch.cat([left, self.branch(x)], 1)).relu())
        return self.head(self.pool(self.mix(y)).flatten(1))


def test_concatenated_and_flattened_channels():
    model, x = build(Flattened), torch.randn(2, 3, 8, 8)
    plan = pruner().plan(model)
    assert {g.name: g.size for g in plan.groups} == {'stem': 8, 'branch': 6}
    masked = mask(copy.deepcopy(model), plan.state)(x)
    assert torch.allclose(slim(model, plan.state)(x), masked, atol=1e-5)


def test_layers_with_some_of_the_units_stay():
    model, x = build(Looped), torch.randn(2, 3, 8, 8)
    plan = pruner().plan(model)
    assert list(plan.state.groups) == ['mix']
    assert plan.refused['loop'].startswith('cut, it fails')
    masked = mask(copy.deepcopy(model), plan.state)(x)
    assert torch.allclose(slim(model, plan.state)(x), masked, atol=1e-5)


def test_tracing_leaves_each_module_in_its_mode():
    model = build(Mixed).train()
    model.norm.eval()
    pruner().plan(model)
    assert model.training and model.stem.training and not model.norm.training


def test_tracing_in_the_type_of_the_weights():
    model = build(Mixed).double()
    assert len(pruner().plan(model).groups) == 3
