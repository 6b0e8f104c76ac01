"""A slim model of unknown classes pruned again: both prunings are one state of the dense model."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from projects.prune_plugin import PruneState, build_pruner, mask, slim
from projects.prune_plugin.structure.prune_state import compose
from projects.prune_plugin.workflows.reports.tables import UnitTable


class Grouped(nn.Module):
    """Grouped queries: with one key/value head left, its query heads are units."""

    def __init__(self):
        super().__init__()
        self.h, self.kv = 4, 2
        self.q, self.k, self.v = nn.Linear(16, 32), nn.Linear(16, 16), nn.Linear(16, 16)
        self.o = nn.Linear(32, 16)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.h, 8).transpose(1, 2)
        k = self.k(x).view(b, n, self.kv, 8).transpose(1, 2)
        v = self.v(x).view(b, n, self.kv, 8).transpose(1, 2)
        repeats = self.h // self.kv
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Skip(nn.Module):
    """Two encoders and a residual in between, whose outputs are concatenated."""

    def __init__(self):
        super().__init__()
        self.d1, self.d2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.m, self.u = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(24, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.d1(x).relu()
        b = self.d2(a).relu()
        for _ in range(3):
            b = b + self.m(b).relu()
        return self.out(self.u(torch.cat([b, a], 1)).relu())


CASES = [
    (Grouped, (2, 5, 16), {}, {}),
    (Skip, (2, 3, 8, 8), {}, dict(units=[dict(type='CoupledChannels')])),
    (Skip, (2, 3, 8, 8), dict(units=[dict(type='CoupledChannels')]), {}),
]


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize(('build', 'shape', 'first', 'second'), CASES)
def test_both_prunings_are_one(build, shape, first, second, seed):
    torch.manual_seed(seed)
    dense, x = build().eval(), torch.randn(shape)
    small, state = deepcopy(dense), None
    for number, more in enumerate((first, second)):
        pruner = build_pruner(
            dict(
                budget=dict(type='units', ratio=0.4 if build is Skip else 0.5),
                criterion=dict(type='Random', seed=seed + number),
            )
            | more
        )
        plan = pruner.plan(small, example_inputs=x)
        for _ in UnitTable(plan, state).lines():
            pass
        state = compose(state, plan.state)
        slim(small, plan.state)
    state = PruneState.from_dict(state.to_dict())
    with torch.no_grad():
        torch.testing.assert_close(slim(deepcopy(dense), state)(x), small(x))
        torch.testing.assert_close(mask(deepcopy(dense), state)(x), small(x), rtol=1e-4, atol=1e-5)
    shapes = {name: weight.shape for name, weight in small.state_dict().items()}
    found = slim(deepcopy(dense), state).state_dict()
    assert {name: weight.shape for name, weight in found.items()} == shapes
