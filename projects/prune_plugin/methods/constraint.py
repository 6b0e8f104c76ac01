"""What units cost, and how much of it may be left: what budgets say to allocators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..structure.unit_group import UnitGroup


class Cost(Protocol):
    """Something a budget limits. Counts are a LongTensor with the kept units of each group."""

    def total(self, counts: Tensor) -> float:
        """The cost of the whole model."""

    def marginal(self, counts: Tensor) -> Tensor:
        """What goes when one more unit of each group goes: float64 of shape (groups,)."""


@dataclass(frozen=True)
class Constraint:
    """At most ``limit`` of ``cost`` may be left, by removing units of ``groups``.

    Attributes:
        groups: Positions of the groups concerned.
        cost: Its counts are those of ``groups`` alone, in this order.
        limit: What may be left.
        dense: What there is before.
        ratio: The fraction to be removed, as it was asked for.
        what: What it is a fraction of, for messages.
        members: The groups themselves, for allocators that go by layer or kind.
    """

    groups: list[int]
    cost: Cost
    limit: float
    dense: float
    ratio: float | None = None
    what: str = ''
    members: Sequence[UnitGroup] = ()


def sizes(groups: Sequence[UnitGroup]) -> Tensor:
    """Units of each group."""
    return torch.tensor([group.size for group in groups], dtype=torch.long)
