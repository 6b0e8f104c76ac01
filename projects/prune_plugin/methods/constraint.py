"""Costs and constraints: the interface between budgets and allocators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..structure.unit_group import UnitGroup


class Cost(Protocol):
    """A quantity that a budget limits, as a function of the number of units kept by each group."""

    def total(self, counts: Tensor) -> float:
        """The cost of the whole model.

        Args:
            counts: Units kept by each group, LongTensor (groups,).
        """

    def marginal(self, counts: Tensor) -> Tensor:
        """The cost saved by removing one more unit of each group.

        Args:
            counts: Units kept by each group, LongTensor (groups,).

        Returns:
            float64 (groups,).
        """


@dataclass(frozen=True)
class Constraint:
    """An upper limit on a cost after units of some groups have been removed.

    Attributes:
        groups: Indices of these groups among all groups of the model.
        cost: The cost; its counts are those of ``groups`` only, in this order.
        limit: The largest cost allowed after pruning.
        dense: The cost before pruning.
        ratio: The fraction to remove, as requested.
        what: Name of the quantity, for messages.
        members: The groups themselves, for allocators that depend on layers or kinds.
    """

    groups: list[int]
    cost: Cost
    limit: float
    dense: float
    ratio: float | None = None
    what: str = ''
    members: Sequence[UnitGroup] = ()


def sizes(groups: Sequence[UnitGroup]) -> Tensor:
    """Number of units of each group, LongTensor (groups,)."""
    return torch.tensor([group.size for group in groups], dtype=torch.long)


def counts(kept: Sequence[Tensor]) -> Tensor:
    """How many units each group keeps, LongTensor (groups,)."""
    return torch.tensor([len(units) for units in kept], dtype=torch.long)


def least_counts(groups: Sequence[UnitGroup], scores: Sequence[Tensor], min_keep: int) -> Tensor:
    """Fewest units each group keeps, LongTensor (groups,): ``min_keep``, or what its modules need to run.

    Of whole layers (attentions, MLPs), the ``min_keep`` best of the model are kept.
    """
    floors = torch.tensor([max(min(min_keep, g.size), g.least) for g in groups])
    for kind in {group.kind for group in groups if group.is_whole}:
        layers = [g for g, group in enumerate(groups) if group.kind == kind]
        floors[layers] = 0
        layers.sort(key=lambda g: float(scores[g].sum()), reverse=True)
        floors[layers[:min_keep]] = 1
    return floors
