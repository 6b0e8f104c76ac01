"""What a budget is."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.validation import is_number
from ...structure.unit_group import UnitGroup
from .costs import Cost


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


class Budget:
    """Base of the budgets: ``ratio`` is the fraction of something that is to be REMOVED.

    Args:
        ratio: Fraction removed, in (0, 1), relative to the model as given.

    Raises:
        UserError: a ratio that is no number, outside [0, 1), or 0, which would remove nothing.
    """

    #: The quantity's name, as in ``budget=dict(type=...)`` and the reports.
    quantity = ''
    #: Whether the cost of whole layers may be counted beside that of the units in them.
    counts_layers = False
    #: Whether the ratio is still to be found by evaluating models: then it is None, and :meth:`at` gives
    #: the budget with one.
    searched = False

    def __init__(self, ratio: float = 0.3):
        self.ratio = checked_ratio(ratio)

    def at(self, ratio: float) -> 'Budget':
        """The same budget with another ratio, the fraction removed."""
        budget = copy(self)
        budget.ratio = ratio
        return budget

    def cost(self, model: nn.Module, groups: Sequence[UnitGroup], profile: dict) -> Cost:
        """The cost that this budget limits.

        Args:
            model: The model as given.
            groups: Its unit groups.
            profile: ``prune_cfg.profile``: ``batch_size``, ``num_threads``, ``input_shape``.
        """
        raise NotImplementedError

    def constraints(self, groups: Sequence[UnitGroup], cost: Cost) -> list[Constraint]:
        """The limits to keep: here, one over all groups."""
        dense = cost.total(sizes(groups))
        everything, limit = list(range(len(groups))), dense * (1 - self.ratio)
        what = self.quantity
        return [Constraint(everything, cost, limit, dense, self.ratio, what, tuple(groups))]


def checked_ratio(ratio: float, key: str = 'prune_cfg.budget.ratio') -> float:
    """``ratio`` if it is a number in (0, 1)."""
    if not is_number(ratio):
        raise UserError(f'{key} is {ratio!r}; it must be a number in [0, 1), the fraction removed')
    if not 0 <= ratio < 1:
        raise UserError(f'{key} is {ratio}; it must be in [0, 1), the fraction removed')
    if ratio == 0:
        raise UserError(f'{key} is 0, which removes nothing; give a fraction removed in (0, 1)')
    return float(ratio)


def sizes(groups: Sequence[UnitGroup]) -> Tensor:
    """Units of each group."""
    return torch.tensor([group.size for group in groups], dtype=torch.long)
