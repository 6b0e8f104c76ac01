"""What a layout of one's own must give, and tensors that several modules share."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from projects.prune_plugin import AttentionHeads, UserError, build_pruner, mask, slim
from projects.prune_plugin.structure.unit_group import Cut, UnitGroup


class Odd(nn.Module):
    """A class with a layout of the test's."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (None, 'returns None; it must be a list of UnitGroup'),
        ([3], r'returns \[3\]; it must be a list of UnitGroup'),
        ([UnitGroup('layer', 'odd', 8, ())], "gives 'layer' no cuts"),
        (
            [UnitGroup('layer', 'odd', 8, (Cut('layer.wait', 0),))],
            "cuts 'layer.wait', and the model has no such tensor",
        ),
        (
            [UnitGroup('layer', 'odd', 8, (Cut('layer.weight', 2),))],
            "cuts dimension 2 of 'layer.weight', which has 2",
        ),
    ],
)
def test_a_layout_that_gives_something_else_is_named(monkeypatch, given, message):
    def of_the_test(name, module):
        return given

    monkeypatch.setitem(AttentionHeads.layouts, 'Odd', of_the_test)
    pruner = build_pruner(dict(units=[dict(type='AttentionHeads')]))
    with pytest.raises(UserError, match=f'the layout of_the_test of AttentionHeads {message}'):
        pruner.plan(Odd())


class Tied(nn.Module):
    """Two blocks that share the weight of their first layers, and one of its own."""

    def __init__(self):
        super().__init__()
        for name, width in (('a', 32), ('b', 32), ('c', 64)):
            layers = nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 16)
            self.add_module(name, nn.Sequential(*layers))
        self.b[0].weight = self.a[0].weight

    def forward(self, x):
        x = self.a(x) + x
        return self.c(self.b(x) + x)


@pytest.mark.parametrize('exclude', [[], ['b.*'], ['a.*']])
@pytest.mark.parametrize('example', [True, False])
def test_a_weight_that_two_modules_share(exclude, example):
    """It isn't cut in one of them alone, whatever is excluded."""
    torch.manual_seed(0)
    model, x = Tied().eval(), torch.randn(4, 16)
    pruner = build_pruner(dict(budget=dict(type='params', ratio=0.2), exclude=exclude))
    plan = pruner.plan(model, example_inputs=x if example else None)
    with torch.no_grad():
        one = slim(deepcopy(model), plan.state)(x)
        torch.testing.assert_close(one, mask(deepcopy(model), plan.state)(x))
    names = {group.name for group in plan.groups}
    assert not {'a.0', 'b.0'} <= names
    if not example:
        assert names == {'c.0'}
        assert 'b.0.weight is one of its tensors, too' in plan.refused['a.0']
