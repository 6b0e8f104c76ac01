"""Base class of the budgets."""

from collections.abc import Sequence
from copy import copy

from torch import nn

from ...common.errors import UserError
from ...common.validation import checked_ratio
from ...structure.unit_group import UnitGroup
from ..constraint import Constraint, Cost, sizes


class Budget:
    """Base of the budgets: ``ratio`` is the fraction of a quantity to be REMOVED.

    Args:
        ratio: Fraction removed, in (0, 1), relative to the model as given.

    Raises:
        UserError: the ratio isn't a number in (0, 1).
    """

    #: The quantity's name, as in ``budget=dict(type=...)`` and the reports.
    quantity = ''
    #: Whether :meth:`cost` can count layers removed by ``remove_empty_layers`` besides units.
    counts_layers = False
    #: Whether the cost is measured by a clock, on a model with weights.
    measured = False
    #: Whether the ratio is searched for by evaluating pruned models: :meth:`at` then returns the budget to
    #: prune by at a given ratio.
    searched = False

    #: The fraction removed; None before a search has found one (``searched``).
    ratio: float | None

    def __init__(self, ratio: float = 0.3):
        self.ratio = checked_ratio(ratio)

    @property
    def known_ratio(self) -> float:
        """The fraction removed.

        Raises:
            UserError: it is still to be searched for.
        """
        if self.ratio is None:
            raise UserError(
                f'prune_cfg.budget.type is {self.quantity!r}, whose ratio is not known before a search '
                'has found one'
            )
        return self.ratio

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
        """The constraints that the allocators must meet: by default one over all groups."""
        dense = cost.total(sizes(groups))
        everything, limit = list(range(len(groups))), dense * (1 - self.known_ratio)
        what = self.quantity
        return [Constraint(everything, cost, limit, dense, self.ratio, what, tuple(groups))]
