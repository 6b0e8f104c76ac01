"""A budget of units."""

from ...common.registry import BUDGETS
from ..constraint import Constraint
from .base import Budget
from .costs import UnitCost


@BUDGETS.register_module(name='units')
class UnitsBudget(Budget):
    """Remove a fraction of the units of every kind: of the heads, of the neurons and so on.

    Example:
        >>> prune_cfg = dict(budget=dict(type='units', ratio=0.7))
    """

    quantity = 'units'

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        return UnitCost()

    def constraints(self, groups, cost):
        """One constraint per kind of unit: ``floor(n * (1 - ratio))`` of n units are kept at most."""
        result = []
        for kind in dict.fromkeys(group.kind for group in groups):
            members = [g for g, group in enumerate(groups) if group.kind == kind]
            dense = sum(groups[g].size for g in members)
            limit = int(dense * (1 - self.known_ratio) + 1e-9)
            kind_groups = tuple(groups[g] for g in members)
            what = f'{kind} units'
            result.append(Constraint(members, cost, limit, dense, self.ratio, what, kind_groups))
        return result
