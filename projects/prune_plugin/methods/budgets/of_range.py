"""Budgets whose ratio is one of the whole model, or of what may go of it."""

from collections.abc import Sequence

from ...common.validation import one_of
from ...structure.unit_group import UnitGroup
from ..constraint import Cost
from .base import Budget
from .costs import RangeCost


class BudgetOfRange(Budget):
    """Base of the budgets that can be of a range of layers.

    Args:
        ratio: Fraction removed, in (0, 1).
        of: What the ratio is of: ``'model'``, or ``'range'``: what the units hold that may go.

    Raises:
        UserError: the ratio isn't in (0, 1), or ``of`` is neither.
    """

    def __init__(self, ratio: float = 0.3, of: str = 'model'):
        super().__init__(ratio)
        self.of = one_of('prune_cfg.budget.of', of, ('model', 'range'))
        if of == 'range':
            self.quantity = f'{self.quantity} of the range'

    def limited(self, cost: Cost, groups: Sequence[UnitGroup]) -> Cost:
        """The part of a model's cost that this budget limits."""
        return cost if self.of == 'model' else RangeCost(cost, groups)
