"""From scores and costs to the units that every group keeps."""

from typing import Any

import torch
from torch import Tensor, nn

from ...structure.prune_state import PruneState
from ...structure.unit_group import UnitGroup, named_tensors
from ..allocators.base import fill_back
from ..constraint import Cost, counts, least_counts, sizes
from ..rounding import check_kinds, round_to_of_groups


def allocated(
    pruner: Any,
    model: nn.Module,
    groups: list[UnitGroup],
    scores: list[Tensor],
    cost: Cost,
) -> list[Tensor]:
    """Kept units of every group by a StructuredPruner; see :meth:`.StructuredPruner.allocate`."""
    kept: list[Tensor] = [torch.arange(group.size) for group in groups]
    floors = least_counts(groups, scores, pruner.min_keep)
    pruner.allocator.check(groups)
    check_kinds(pruner.round_to, groups)
    allocator = pruner.allocator.fitted(groups, named_tensors(model), pruner.budget.ratio)
    for constraint in pruner.budget.constraints(groups, cost):
        members = constraint.groups
        of_members = [scores[g] for g in members]
        round_to = round_to_of_groups(pruner.round_to, [groups[g] for g in members])
        left = allocator.allocate(of_members, constraint, floors[members], round_to)
        left = fill_back(left, sizes(constraint.members), pruner.fillback_rate)
        for g, score, count in zip(members, of_members, left.tolist(), strict=True):
            order = score.sort(stable=True).indices
            kept[g] = order[len(order) - count :].sort().values
    return kept


def corrected_cost(
    pruner: Any,
    model: nn.Module,
    groups: list[UnitGroup],
    scores: list[Tensor],
    example: Any,
) -> Cost:
    """The cost by a StructuredPruner's budget; corrected where what a plan costs can be looked at."""
    cost = pruner.cost(model, groups, example)
    if not pruner.budget.tried:
        return cost

    def trial(cost: Cost) -> tuple[Tensor, PruneState]:
        kept = pruner.allocate(model, groups, scores, cost)
        return counts(kept), pruner.state_of(model, groups, kept)

    return pruner.budget.corrected(model, groups, trial, cost, pruner.timing(example))
