"""FLOPs budgets of modules whose operations no simple rule fits: what is said is what PyTorch counts."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import FlopCounterMode

from projects.prune_plugin import build_pruner, slim
from projects.prune_plugin.methods.budgets import flops


class Einsum(nn.Module):
    """Attention of bare parameters: several matrices, and units of two kinds, in one module."""

    def __init__(self):
        super().__init__()
        shapes = dict(wq=(4, 64, 16), wk=(4, 64, 16), wv=(4, 64, 16), wo=(4, 16, 64))
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape) * 0.1))

    def forward(self, x):
        q, k, v = (torch.einsum('bnd,hdk->bhnk', x, w) for w in (self.wq, self.wk, self.wv))
        mixed = (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v
        return torch.einsum('bhik,hkd->bid', mixed, self.wo)


class Shared(nn.Module):
    """A block with a weight norm that runs three times."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(weight_norm(nn.Linear(48, 192)), nn.GELU(), nn.Linear(192, 48))
        self.head = nn.Linear(48, 4)

    def forward(self, x):
        for _ in range(3):
            x = x + self.block(x)
        return self.head(x)


class Recurrent(nn.Module):
    """A GRU, whose weights aren't called ``weight``."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(32, 64, batch_first=True), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


MODELS = {
    'einsum': (Einsum, (1, 9, 64)),
    'shared': (Shared, (2, 48)),
    'gru': (Recurrent, (2, 7, 32)),
}


def counted(model, x) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(x)
    return counter.get_total_flops()


@pytest.mark.parametrize('ratio', [0.15, 0.5])
@pytest.mark.parametrize('name', MODELS)
def test_what_is_said_is_counted(name, ratio):
    torch.manual_seed(0)
    kind, shape = MODELS[name]
    model, x = kind(), torch.randn(shape)
    plan = build_pruner(dict(budget=dict(type='flops', ratio=ratio))).plan(model, example_inputs=x)
    removed = 1 - counted(slim(deepcopy(model), plan.state), x) / counted(model, x)
    assert plan.result.achieved == pytest.approx(removed, abs=2e-3)
    assert ratio <= removed + 1e-9 and removed < ratio + 0.03


def test_a_prediction_that_is_wrong_is_corrected(monkeypatch):
    """A cost by which everything takes off a third of what it does."""
    honest = flops.flops_cost

    def wrong(model, groups, example):
        cost = honest(model, groups, example)
        return flops.ScaledCost(cost, 1 / 3, cost.total(flops.sizes(groups)))

    monkeypatch.setattr(flops, 'flops_cost', wrong)
    torch.manual_seed(0)
    model, x = Shared(), torch.randn(2, 48)
    budget = dict(type='flops', ratio=0.3)
    plan = build_pruner(dict(budget=budget)).plan(model, example_inputs=x)
    removed = 1 - counted(slim(deepcopy(model), plan.state), x) / counted(model, x)
    assert removed == pytest.approx(0.3, abs=0.01)


def test_what_can_not_be_corrected_is_said(monkeypatch):
    """Counts that differ each time by a tenth of the model."""
    honest, calls, said = flops.module_flops, iter(range(100)), []
    monkeypatch.setattr(flops, 'print_log', lambda text, *_: said.append(text))

    def noisy(model, example):
        return {'': sum(honest(model, example).values()) * (1 - 0.1 * (next(calls) % 2))}

    model, x = Shared(), torch.randn(2, 48)
    cost = flops.flops_cost(model, build_pruner({}).find(model, x).groups, ((x,), {}))
    monkeypatch.setattr(flops, 'flops_cost', lambda *_: cost)
    monkeypatch.setattr(flops, 'module_flops', noisy)
    build_pruner(dict(budget=dict(type='flops', ratio=0.3))).plan(model, example_inputs=x)
    assert said[0].endswith('the closest of 5 plans')
