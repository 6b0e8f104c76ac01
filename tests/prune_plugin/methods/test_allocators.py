"""Allocators against plain loops and exhaustive search, on instances small enough for both."""

import itertools
from dataclasses import replace

import pytest
import torch
from cases import ALLOCATOR_ROWS, GREEDY

from projects.prune_plugin import ALLOCATORS, Cut, InfeasibleBudgetError, UnitGroup, UserError
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.methods.budgets import Constraint


class LinearCost:
    """A fixed price for each unit of each group."""

    def __init__(self, prices, constant=0.0):
        self.prices, self.constant = torch.tensor(prices, dtype=torch.float64), constant

    def total(self, counts):
        return float(self.constant + (self.prices * counts).sum())

    def marginal(self, counts):
        return self.prices


def instance(seed: int, equal_prices: bool = False):
    """Scores, prices and a limit, drawn at random; two to four groups of one to five units."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    sizes = [draw(1, 6) for _ in range(draw(2, 5))]
    scores = [torch.rand(s, generator=generator, dtype=torch.float64) for s in sizes]
    prices = [1.0 if equal_prices else float(draw(1, 9)) for _ in sizes]
    cost = LinearCost(prices, constant=float(draw(0, 10)))
    dense = cost.total(torch.tensor(sizes))
    share = 0.1 + 0.6 * float(torch.rand((), generator=generator))
    limit = dense - share * (dense - cost.constant)
    return scores, Constraint(list(range(len(sizes))), cost, limit, dense)


def allocate(row: dict | str, scores, constraint, floor: int = 0, round_to: int = 1):
    floors = torch.full((len(scores),), floor)
    cfg = dict(type=row) if isinstance(row, str) else row
    return build(ALLOCATORS, cfg, '').allocate(scores, constraint, floors, round_to)


def removed_score(scores, counts) -> float:
    return sum(
        float(s.sort().values[: len(s) - k].sum()) for s, k in zip(scores, counts, strict=True)
    )


def greedy_by_hand(scores, constraint, per_cost: bool) -> list[int]:
    """Removes units one at a time, least score (per cost) first, until the limit is kept.

    On the last steps a unit that would overshoot by the cheapest unit's price or more is passed over.
    """
    prices = constraint.cost.prices.tolist()
    units = [
        (float(score) / (prices[g] if per_cost else 1), g)
        for g, group in enumerate(scores)
        for score in group.sort().values
    ]
    left = sorted(units)
    counts = [len(group) for group in scores]

    def total():
        return constraint.cost.total(torch.tensor(counts))

    while total() > constraint.limit:
        gap = total() - constraint.limit
        cheapest = min(prices[g] for _, g in left)
        chosen = next(u for u in left if prices[u[1]] < gap + cheapest)
        left.remove(chosen)
        counts[chosen[1]] -= 1
    return counts


@pytest.mark.parametrize('name', GREEDY)
@pytest.mark.parametrize('seed', range(30))
def test_greedy_allocators_are_the_loop(name, seed):
    scores, constraint = instance(seed)
    counts = allocate(name, scores, constraint)
    assert counts.tolist() == greedy_by_hand(scores, constraint, per_cost=name == 'Knapsack')


@pytest.mark.parametrize('name', GREEDY)
@pytest.mark.parametrize('seed', range(10))
def test_equal_prices_give_the_optimum(name, seed):
    scores, constraint = instance(seed, equal_prices=True)
    counts = allocate(name, scores, constraint)
    feasible = [
        torch.tensor(c)
        for c in itertools.product(*(range(len(s) + 1) for s in scores))
        if constraint.cost.total(torch.tensor(c)) <= constraint.limit
    ]
    best = min(removed_score(scores, c) for c in feasible)
    assert removed_score(scores, counts) == pytest.approx(best)


@pytest.mark.parametrize('seed', range(5))
def test_knapsack_is_close_to_the_fractional_optimum(seed):
    """No choice of whole units removes less score than the fractional optimum does."""
    generator = torch.Generator().manual_seed(seed)
    groups = [(8, 30.0), (60, 1.0), (8, 30.0), (60, 2.0)]
    scores = [p * torch.rand(n, generator=generator, dtype=torch.float64) for n, p in groups]
    cost = LinearCost([price for _, price in groups])
    dense = cost.total(torch.tensor([n for n, _ in groups]))
    constraint = Constraint(list(range(4)), cost, 0.6 * dense, dense)
    units = sorted(
        (float(s) / price, float(s), price)
        for (_, price), group in zip(groups, scores, strict=True)
        for s in group
    )
    gap, bound = 0.4 * dense, 0.0
    for _, score, price in units:
        share = min(1.0, gap / price)
        bound, gap = bound + share * score, gap - share * price
        if gap <= 1e-9:
            break
    by_ratio, by_score = (
        removed_score(scores, allocate(name, scores, constraint)) for name in GREEDY
    )
    assert bound <= by_ratio * (1 + 1e-9)
    assert by_ratio <= 1.1 * bound
    assert by_ratio <= by_score


@pytest.mark.parametrize(
    ('least', 'floor', 'limited'),
    [
        (1, 1, 'can be removed: modules need the other units to run, whatever min_keep is; lower'),
        (0, 0, 'can be removed: no units own the rest; lower the ratio'),
        (0, 1, 'but with min_keep and round_to at most'),
        (1, 2, 'but with min_keep and round_to at most'),
    ],
)
def test_what_limits_a_ratio_is_said(least, floor, limited):
    groups = [UnitGroup(name, 'mlp', 4, (Cut(name, 0),), least=least) for name in 'ab']
    constraint = Constraint([0, 1], LinearCost([1.0, 1.0], 3.0), 3.5, 11.0, 0.7, members=groups)
    tight = replace(constraint, limit=2.5)
    with pytest.raises(InfeasibleBudgetError, match=limited):
        allocate('Global', [torch.rand(4).double()] * 2, constraint if floor else tight, floor)


@pytest.mark.parametrize('row', ALLOCATOR_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize(('floor', 'round_to'), [(0, 1), (1, 1), (2, 1), (1, 2), (0, 3)])
def test_limit_floors_and_rounding(row, seed, floor, round_to):
    scores, constraint = instance(seed)
    sizes = torch.tensor([len(s) for s in scores])
    least = [min(n, -(-floor // round_to) * round_to) for n in sizes.tolist()]
    if constraint.cost.total(torch.tensor(least)) > constraint.limit:
        with pytest.raises(
            UserError, match=r'prune_cfg.budget.ratio is .* at most .* can be removed'
        ):
            allocate(row, scores, constraint, floor, round_to)
        return
    counts = allocate(row, scores, constraint, floor, round_to)
    assert constraint.cost.total(counts) <= constraint.limit
    assert counts.dtype == torch.long
    for kept, size, lowest in zip(counts.tolist(), sizes.tolist(), least, strict=True):
        assert lowest <= kept <= size
        assert kept == size or kept % round_to == 0
    if row['type'] in GREEDY and round_to == 1:
        removable = [
            price
            for price, n, k in zip(constraint.cost.prices, sizes, counts, strict=True)
            if k < n or k > floor
        ]
        assert constraint.limit - constraint.cost.total(counts) < max(removable)


@pytest.mark.parametrize('seed', range(10))
def test_uniform_removes_the_same_share_and_no_more_than_needed(seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = [8, 40, 24]
    scores = [torch.rand(n, generator=generator, dtype=torch.float64) for n in sizes]
    cost = LinearCost([5.0, 1.0, 2.0])
    dense = cost.total(torch.tensor(sizes))
    constraint = Constraint([0, 1, 2], cost, 0.55 * dense, dense)
    counts = allocate('Uniform', scores, constraint)
    fractions = [1 - k / n for k, n in zip(counts.tolist(), sizes, strict=True)]
    assert max(fractions) - min(fractions) < 1 / min(sizes)
    candidates = {1 - k / n for n in sizes for k in range(n + 1)}

    def kept(fraction):
        return torch.tensor([int(n * (1 - fraction) + 1e-9) for n in sizes])

    least = min(f for f in candidates if cost.total(kept(f)) <= constraint.limit)
    assert counts.tolist() == kept(least).tolist()


def test_the_most_important_units_stay():
    """Within a group an allocator only counts; the pruner keeps the best that many."""
    from cases import BY_NAME, HEADS, NEURONS

    from projects.prune_plugin import StructuredPruner

    pruner = StructuredPruner([HEADS, NEURONS], budget=dict(type='units', ratio=0.5))
    plan = pruner.plan(BY_NAME['vit'].dense())
    for group, score in zip(plan.groups, plan.importance, strict=True):
        kept = plan.state.kept[group.name]
        gone = plan.state.removed(group.name)
        assert len(kept) + len(gone) == group.size
        if len(kept) and len(gone):
            assert score[kept].min() >= score[gone].max()


def test_ties_are_broken_the_same_way_every_time():
    scores = [torch.ones(6, dtype=torch.float64) for _ in range(3)]
    cost = LinearCost([1.0, 1.0, 1.0])
    constraint = Constraint([0, 1, 2], cost, 9.0, 18.0)
    for name in GREEDY:
        first = allocate(name, scores, constraint)
        assert int(first.sum()) == 9
        assert torch.equal(first, allocate(name, scores, constraint))
