"""Base class of the budgets."""

import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.validation import checked_ratio
from ...structure.prune_state import PruneState
from ...structure.unit_group import UnitGroup
from ..constraint import Constraint, Cost, sizes

#: By how much more than asked may go without a word, as a fraction of the model.
OVERSHOOT = 0.05
#: From a cost to a plan by it: how many units each group keeps, and which.
Trial = Callable[[Cost], tuple[Tensor, PruneState]]


@dataclass
class BudgetResult:
    """What was asked of a budget and what came of it, in its own quantity.

    Attributes:
        quantity: The quantity's name.
        asked: The fraction to remove.
        achieved: The fraction removed, by the budget's own cost.
        dense: How much of the quantity the model had as given.
        pruned: How much is left.
        unit: Of ``dense`` and ``pruned``; empty for plain counts.
    """

    quantity: str = ''
    asked: float | None = None
    achieved: float | None = None
    dense: float | None = None
    pruned: float | None = None
    unit: str = ''


class Budget:
    """Base of the budgets: ``ratio`` is the fraction of a quantity to be REMOVED.

    Args:
        ratio: Fraction removed, in (0, 1), relative to the model as given.

    Raises:
        UserError: the ratio isn't a number in (0, 1).
    """

    #: The quantity's name, as in ``budget=dict(type=...)`` and the reports.
    quantity = ''
    #: The quantity's unit, for the reports; empty for plain counts.
    unit = ''
    #: Whether :meth:`cost` can count layers removed by ``remove_empty_layers`` besides units.
    counts_layers = False
    #: Whether the cost is measured by a clock, on a model with weights.
    measured = False
    #: Whether what a first plan costs is looked at (:meth:`corrected`).
    tried = False
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

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked for, as in the reports: ``budget`` and ``ratio``."""
        return {'budget': self.quantity, 'ratio': self.ratio}

    def achieved(self, dense: float, pruned: float) -> BudgetResult:
        """What came of this budget.

        Args:
            dense: The cost of the model as given.
            pruned: The cost of what is left.
        """
        removed = 1 - pruned / dense if dense else 0.0
        if self.ratio is not None and removed > self.ratio + OVERSHOOT:
            print_log(
                f'prune_cfg.budget: {removed:.1%} of {self.quantity} go where {self.ratio:.1%} was asked: '
                'with fewer units gone it would be less than asked, and single units are that large',
                'current',
                logging.WARNING,
            )
        return BudgetResult(self.quantity, self.ratio, removed, dense, pruned, self.unit)

    def cost(self, model: nn.Module, groups: Sequence[UnitGroup], profile: dict) -> Cost:
        """The cost that this budget limits.

        Args:
            model: The model as given.
            groups: Its unit groups.
            profile: ``prune_cfg.profile`` (``batch_size``, ``num_threads``, ``input_shape``), and
                ``round_to``.
        """
        raise NotImplementedError

    def corrected(
        self,
        model: nn.Module,
        groups: Sequence[UnitGroup],
        trial: Trial,
        cost: Any,
        profile: dict,
    ) -> Cost:
        """A cost that fits what a plan turns out to cost; called where :attr:`tried`.

        Args:
            model: The model as given.
            groups: Its unit groups.
            trial: Plans by a cost: units kept of each group, LongTensor (groups,), and their state.
            cost: What :meth:`cost` gave.
            profile: As for :meth:`cost`.
        """
        return cost

    def remeasured(self, dense: nn.Module, pruned: nn.Module, profile: dict) -> BudgetResult | None:
        """What came of the budget, measured on the pruned model; None where reports have that anyway.

        Args:
            dense: The model as given.
            pruned: What is left of it.
            profile: As for :meth:`cost`.
        """
        return None

    def constraints(self, groups: Sequence[UnitGroup], cost: Cost) -> list[Constraint]:
        """The constraints that the allocators must meet: by default one over all groups."""
        dense = cost.total(sizes(groups))
        everything, limit = list(range(len(groups))), dense * (1 - self.known_ratio)
        what = self.quantity
        return [Constraint(everything, cost, limit, dense, self.ratio, what, tuple(groups))]
