"""What a budget is."""

from collections.abc import Sequence
from copy import copy

from torch import nn

from ...common.validation import checked_ratio
from ...structure.unit_group import UnitGroup
from ..constraint import Constraint, Cost, sizes


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
    #: Whether the cost is measured by a clock, on a model with weights.
    measured = False
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
