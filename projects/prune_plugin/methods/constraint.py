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
