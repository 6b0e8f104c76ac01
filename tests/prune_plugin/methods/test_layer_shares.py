"""Allocators that give every layer a share: Uniform with exact budgets, and LayerWise."""

import math
from dataclasses import dataclass

import pytest
import torch
from cases import BOTH, BY_NAME
from test_allocators import LinearCost

from projects.prune_plugin import ALLOCATORS, StructuredPruner, UserError
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.methods.budgets import Constraint


@dataclass
class Group:
    kind: str
    layer_idx: int
    least: int = 0


def model(seed: int = 0, layers: int = 6, sizes=(4, 40), prices=(50.0, 1.0)):
    """Attention groups and channels of layers that differ in importance; scores and groups."""
    generator = torch.Generator().manual_seed(seed)
    groups, scores, costs = [], [], []
    for kind, size, price in zip(('attention', 'mlp'), sizes, prices, strict=True):
        for layer in range(layers):
            groups.append(Group(kind, layer))
            scale = 1 + 3 * ((layer * 5) % layers)
            scores.append(scale * torch.rand(size, generator=generator, dtype=torch.float64))
            costs.append(price)
    return groups, scores, LinearCost(costs, constant=100.0)


def constraint_of(groups, scores, cost, ratio: float) -> Constraint:
    dense = cost.total(torch.tensor([len(s) for s in scores]))
    everything = list(range(len(groups)))
    return Constraint(everything, cost, dense * (1 - ratio), dense, ratio, 'params', tuple(groups))


def allocate(cfg, groups, scores, cost, ratio, floor: int = 0, round_to: int = 1) -> list[int]:
    allocator = build(ALLOCATORS, cfg, 'prune_cfg.allocator')
    floors = torch.full((len(groups),), floor)
    constraint = constraint_of(groups, scores, cost, ratio)
    return allocator.allocate(scores, constraint, floors, round_to).tolist()


def layer_wise_by_hand(groups, scores, cost, ratio, factors, floor) -> list[int]:
    """Attention first, which is dear; then channels, with a scale of their own."""
    layers = sorted({g.layer_idx for g in groups})
    worth = {
        layer: sum(
            float(s.sum()) for g, s in zip(groups, scores, strict=True) if g.layer_idx == layer
        )
        for layer in layers
    }
    mean = sum(worth.values()) / len(layers)
    prices = dict(attention=50.0, mlp=1.0)
    dense = cost.constant + sum(
        prices[g.kind] * len(s) for g, s in zip(groups, scores, strict=True)
    )
    limit = dense * (1 - ratio)

    def fractional(g: int, scale: float) -> float:
        group, size = groups[g], len(scores[g])
        return size * (1 - min(1.0, scale * factors[group.kind] * mean / worth[group.layer_idx]))

    def rounded(g: int, scale: float) -> int:
        return max(math.ceil(fractional(g, scale) - 0.5 - 1e-9), min(floor, len(scores[g])))

    def spent(counts: list[int]) -> float:
        return cost.constant + sum(prices[g.kind] * n for g, n in zip(groups, counts, strict=True))

    def smallest(counts) -> float:
        low, high = 0.0, 100.0
        while high - low > 1e-13:
            middle = (low + high) / 2
            low, high = (middle, high) if spent(counts(middle)) > limit else (low, middle)
        return high

    numbers = range(len(groups))
    settled: dict[int, int] = {}
    for kind, price in prices.items():
        scale = smallest(lambda t, s=settled: [s.get(g, rounded(g, t)) for g in numbers])
        counts = [settled.get(g, rounded(g, scale)) for g in numbers]
        missing = {g: fractional(g, scale) - counts[g] for g in numbers if groups[g].kind == kind}
        for g in sorted(missing, key=missing.get, reverse=True):
            if missing[g] > 0 and spent(counts) + price <= limit:
                counts[g] += 1
        settled = settled | {g: counts[g] for g in missing}
    return [settled[g] for g in numbers]


@pytest.mark.parametrize('factors', [{}, {'attention': 0.5, 'mlp': 1.0}, {'mlp': 2.0}])
@pytest.mark.parametrize('floor', [0, 1])
@pytest.mark.parametrize('seed', range(4))
def test_layer_wise_is_the_formula(seed, floor, factors):
    groups, scores, cost = model(seed)
    counts = allocate(dict(type='LayerWise', factors=factors), groups, scores, cost, 0.3, floor)
    full = {'attention': 1.0, 'mlp': 1.0, **factors}
    assert counts == layer_wise_by_hand(groups, scores, cost, 0.3, full, floor)


def test_unimportant_layers_lose_more_and_the_budget_is_exact():
    groups, scores, cost = model(sizes=(8, 400), prices=(50.0, 1.0))
    counts = allocate(dict(type='LayerWise'), groups, scores, cost, 0.3, floor=1)
    worth = [float(scores[i].sum() + scores[i + 6].sum()) for i in range(6)]
    left = [count for _, count in sorted(zip(worth, counts[6:], strict=True))]
    assert left == sorted(left) and left[0] < left[-1]
    dense = cost.total(torch.tensor([len(s) for s in scores]))
    removed = 1 - cost.total(torch.tensor(counts)) / dense
    assert 0.3 <= removed < 0.3 + 2 / dense


def test_a_kind_with_factor_0_stays_whole():
    groups, scores, cost = model()
    counts = allocate(dict(type='LayerWise', factors=dict(attention=0)), groups, scores, cost, 0.1)
    assert counts[:6] == [4] * 6 and sum(counts[6:]) < 6 * 40
    with pytest.raises(UserError, match='at most 0.1'):
        allocate(dict(type='LayerWise', factors=dict(attention=0)), groups, scores, cost, 0.5)


def test_layers_of_no_importance_go_first():
    groups, scores, cost = model()
    for g, group in enumerate(groups):
        scores[g] = scores[g] * (group.layer_idx != 3)
    counts = allocate(dict(type='LayerWise'), groups, scores, cost, 0.15)
    assert counts[3] == 0 and counts[9] < 10
    assert sum(counts) - counts[3] - counts[9] == 5 * 44
    everything = [torch.zeros_like(s) for s in scores]
    counts = allocate(dict(type='LayerWise'), groups, everything, cost, 0.5)
    assert sorted(counts) == [1, 2, 2, 2, 2, 2, *[20] * 6]


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (
            dict(type='LayerWise', factors=0.5),
            'factors is 0.5; it must be a dict of numbers by kind',
        ),
        (
            dict(type='LayerWise', factors=dict(mlp=-1)),
            'factors.mlp is -1; it must be a number >= 0',
        ),
        (dict(type='LayerWise', factors=dict(mlp=True)), 'factors.mlp is True'),
        (
            dict(type='LayerWise', factors=dict(fins=1)),
            "factors: 'fins' matches nothing",
        ),
        (dict(type='Uniform', exact=1), 'exact is 1; it must be True or False'),
    ],
)
def test_bad_settings_are_named(cfg, message):
    with pytest.raises(UserError, match=message):
        StructuredPruner(BOTH, allocator=cfg).plan(BY_NAME['vit'].dense())


@pytest.mark.parametrize('round_to', [1, 4])
@pytest.mark.parametrize('ratio', [0.1, 0.25, 0.3, 0.42])
def test_uniform_fills_up(ratio, round_to):
    """SmolLM2's shape: equal groups change together, so rounding down overshoots."""
    groups, scores, cost = model(layers=30, sizes=(3, 1536), prices=(294912.0, 1728.0))
    if round_to > 1:
        groups, scores = groups[30:], scores[30:]
        cost = LinearCost(cost.prices.tolist()[30:])
    plain, exact = (
        allocate(dict(type='Uniform', exact=e), groups, scores, cost, ratio, 0, round_to)
        for e in (False, True)
    )
    dense = cost.total(torch.tensor([len(s) for s in scores]))
    limit = dense * (1 - ratio)
    gap = [limit - cost.total(torch.tensor(counts)) for counts in (plain, exact)]
    assert gap[0] >= gap[1] >= 0
    for size in {len(s) for s in scores}:
        kept = {n for n, s in zip(exact, scores, strict=True) if len(s) == size}
        assert max(kept) - min(kept) <= round_to
        assert len({n for n, s in zip(plain, scores, strict=True) if len(s) == size}) == 1
    waiting = [p for p, a, b in zip(cost.prices.tolist(), plain, exact, strict=True) if a == b]
    assert not waiting or gap[1] < round_to * min(waiting)
