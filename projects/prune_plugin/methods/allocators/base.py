"""From scores and a budget to the number of units each group keeps."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...common.errors import InfeasibleBudgetError
from ...structure.unit_group import UnitGroup
from ..constraint import Constraint
from ..rounding import per_group


class Allocator:
    """Base of the allocators.

    A group always keeps its most important units, so an allocator only decides how many each keeps.
    """

    #: Whether the counts depend on the weights, beside the scores: see :meth:`fitted`.
    depends_on_weights = False

    def check(self, groups: Sequence[UnitGroup]) -> None:
        """Raise ``UserError`` if the settings don't suit these unit groups."""

    def fitted(
        self, groups: Sequence[UnitGroup], tensors: Mapping[str, Tensor], ratio: float
    ) -> 'Allocator':
        """The allocator for these weights: itself, or with ``depends_on_weights`` a copy that knows them.

        Args:
            groups: All unit groups.
            tensors: The model's parameters and buffers by name.
            ratio: The budget's fraction removed.
        """
        return self

    def allocate(
        self,
        scores: Sequence[Tensor],
        constraint: Constraint,
        floors: Tensor,
        round_to: int | Tensor = 1,
    ) -> Tensor:
        """Decide how many units each group keeps.

        Args:
            scores: Importance of every unit, one float64 vector per group of the constraint.
            constraint: What limits them.
            floors: Fewest units each group may keep, LongTensor (groups,).
            round_to: What is left of a group that loses units is a multiple of this; where it differs by
                kind of unit a LongTensor (groups,).

        Returns:
            LongTensor (groups,) of units kept; the cost is at most ``constraint.limit``.

        Raises:
            InfeasibleBudgetError: the limit is below what the floors allow.
        """
        raise NotImplementedError


def rounded_floors(floors: Tensor, sizes: Tensor, round_to: int | Tensor) -> Tensor:
    """Floors as multiples of ``round_to``; a group too small for that keeps all its units."""
    raised = (floors + round_to - 1) // round_to * round_to
    return torch.minimum(raised, sizes)


def check_reachable(constraint: Constraint, floors: Tensor) -> None:
    """Raise :class:`InfeasibleBudgetError` if even the floors cost more than the limit."""
    least = constraint.cost.total(floors)
    if least > constraint.limit * (1 + 1e-12):
        asked = constraint.ratio or 1 - constraint.limit / constraint.dense
        most = max(1 - least / constraint.dense, 0)
        if reason := own_limit(constraint, floors):
            raise InfeasibleBudgetError(
                f'prune_cfg.budget.ratio is {asked:.4g}, but at most {most:.4g} of '
                f'{constraint.what or "the cost"} can be removed: {reason}; lower the ratio'
                f'{of_range(constraint, floors, asked)}',
                most,
            )
        raise InfeasibleBudgetError(
            f'prune_cfg.budget.ratio is {asked:.4g}, but with min_keep and round_to at most '
            f'{most:.4g} of {constraint.what or "the cost"} can be removed; lower the ratio or the floors'
            f'{of_range(constraint, floors, asked)}',
            most,
        )


def own_limit(constraint: Constraint, floors: Tensor) -> str:
    """What of the model limits a budget; empty where ``min_keep`` or ``round_to`` do."""
    if not bool(floors.any()):
        return 'no units own the rest'
    own = [group.least for group in constraint.members]
    return (
        'modules need the other units to run, whatever min_keep is'
        if own == floors.tolist()
        else ''
    )


def of_range(constraint: Constraint, floors: Tensor, asked: float) -> str:
    """Advice where even all units are less than was asked for, for budgets that can be of a range."""
    if constraint.what not in ('params', 'flops'):
        return ''
    held = 1 - constraint.cost.total(torch.zeros_like(floors)) / constraint.dense
    if held >= asked:
        return ''
    return f". All units hold {held:.4g} of it: with budget.of='range' a ratio is of what they hold"


def whole_units(left: Tensor, sizes: Tensor, floors: Tensor, round_to: int | Tensor) -> Tensor:
    """Fractional counts rounded down to multiples of ``round_to``, but not below the floors."""
    kept = (left + 1e-9).floor().long()
    kept = torch.where(kept < sizes, kept // round_to * round_to, kept)
    return torch.maximum(kept, floors)


def least_scale(total: Callable[[float], float], limit: float, most: float) -> float:
    """The smallest number in [0, most] at which ``total``, which falls with it, keeps ``limit``."""
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        if total(middle) > limit:
            low = middle
        else:
            high = middle
    return high


def restore_rounded_units(
    left: Tensor, counts: Tensor, sizes: Tensor, constraint: Constraint, round_to: int | Tensor
) -> Tensor:
    """Return units that rounding down took too many, at most one chunk to each group.

    The groups that rounding cost the largest part of a chunk come first. One whose chunk would
    break the limit is passed over.

    Args:
        left: What each group would keep without rounding, float64.
        counts: What it keeps.
        sizes: Units of each group.
        constraint: The limit.
        round_to: Units in a chunk.

    Returns:
        New counts.
    """
    counts, chunks = counts.clone(), per_group(round_to, len(sizes))
    for g in (left - counts).argsort(descending=True, stable=True).tolist():
        more = counts.clone()
        more[g] = min(int(counts[g]) + chunks[g], int(sizes[g]))
        if left[g] > counts[g] and constraint.cost.total(more) <= constraint.limit:
            counts = more
    return counts


class Items:
    """Units in the order in which they may go: within a group always the least important first.

    With ``round_to`` an item is a chunk of units; a group's first chunk brings it to a multiple.

    Attributes:
        group: Group of each item, LongTensor (items,), in removal order.
        units: Units in each item, LongTensor (items,).
    """

    def __init__(
        self,
        scores: Sequence[Tensor],
        costs: Tensor,
        floors: Tensor,
        round_to: int | Tensor,
    ):
        groups, units, priorities = [], [], []
        for g, (score, chunk) in enumerate(
            zip(scores, per_group(round_to, len(scores)), strict=True)
        ):
            removable = len(score) - int(floors[g])
            if removable <= 0:
                continue
            chunks = chunk_sizes(len(score), removable, chunk)
            ordered = score.double().sort(stable=True).values[:removable]
            if chunk > 1:
                which = torch.repeat_interleave(torch.arange(len(chunks)), chunks)
                sums = torch.zeros(len(chunks), dtype=torch.float64).index_add_(0, which, ordered)
                ordered = sums / chunks
            groups.append(torch.full((len(chunks),), g))
            units.append(chunks)
            priorities.append(ordered / costs[g])
        if not groups:
            self.group = self.units = torch.empty(0, dtype=torch.long)
            return
        order = torch.cat(priorities).argsort(stable=True)
        self.group, self.units = torch.cat(groups)[order], torch.cat(units)[order]

    def removed(self, count: int, groups: int) -> Tensor:
        """Units removed from each group when the first ``count`` items go."""
        out = torch.zeros(groups, dtype=torch.long)
        return out.index_add_(0, self.group[:count], self.units[:count])


def chunk_sizes(size: int, removable: int, round_to: int) -> Tensor:
    """Sizes of the chunks in which ``removable`` of ``size`` units may go."""
    if round_to == 1:
        return torch.ones(removable, dtype=torch.long)
    first = size % round_to
    chunks = ([first] if first else []) + [round_to] * ((removable - first) // round_to)
    return torch.tensor(chunks, dtype=torch.long)


def greedy(
    scores: Sequence[Tensor],
    constraint: Constraint,
    floors: Tensor,
    round_to: int | Tensor,
    per_cost: bool,
) -> Tensor:
    """Remove units in ascending order of priority until the limit is kept.

    The longest run of items that stays above the limit goes whole (found by bisection, as the cost
    of a set depends on what else has gone); the rest of the way, an item that would overshoot by
    more than the cheapest one is passed over for later, cheaper ones.

    Args:
        scores: As in :meth:`Allocator.allocate`.
        constraint: As there.
        floors: As there.
        round_to: As there.
        per_cost: Order by score per cost instead of score alone.

    Returns:
        Units kept by each group.
    """
    sizes = torch.tensor([len(score) for score in scores])
    floors = rounded_floors(floors, sizes, round_to)
    check_reachable(constraint, floors)
    cost = constraint.cost
    costs = cost.marginal(sizes) if per_cost else torch.ones(len(sizes), dtype=torch.float64)
    items = Items(scores, costs, floors, round_to)

    low, high = 0, len(items.group)
    while low < high:
        middle = (low + high + 1) // 2
        if cost.total(sizes - items.removed(middle, len(sizes))) > constraint.limit:
            low = middle
        else:
            high = middle - 1
    counts = sizes - items.removed(low, len(sizes))
    rest = torch.arange(low, len(items.group))
    while len(rest) and (gap := cost.total(counts) - constraint.limit) > 0:
        prices = cost.marginal(counts)[items.group[rest]] * items.units[rest]
        fits = (prices < gap + prices.min()).nonzero().flatten()
        taken = fits[: max(1, int((prices[fits].cumsum(0) <= gap).sum()))]
        counts.index_add_(0, items.group[rest[taken]], -items.units[rest[taken]])
        stays = torch.ones(len(rest), dtype=torch.bool)
        stays[taken] = False
        rest = rest[stays]
    return counts


def fill_back(counts: Tensor, sizes: Tensor, rate: float) -> Tensor:
    """Keep a fraction of the units that would be removed, too: ``floor(n + (C - n) * rate)`` of C units.

    Args:
        counts: What each group would keep, n; fractions of units are allowed.
        sizes: Units of each group, C.
        rate: The fraction of the others, in [0, 1).

    Source: the fillback rate of Structure-LTH (github.com/VITA-Group/Structure-LTH), "Refill+".
    """
    return (counts + (sizes - counts) * rate + 1e-9).floor().long()
