"""A budget of units."""

from collections.abc import Mapping

from ...common.errors import UserError
from ...common.registry import BUDGETS
from ...common.validation import checked_ratio
from ..constraint import Constraint
from .base import Budget
from .costs import UnitCost


@BUDGETS.register_module(name='units')
class UnitsBudget(Budget):
    """Remove a fraction of the units of every kind: of the heads, of the neurons and so on.

    Args:
        ratio: Fraction removed, in (0, 1); or a dict of fractions by kind of unit, as in the reports. Kinds
            that aren't named then keep their units. In rounds all approach theirs alike.

    Raises:
        UserError: a ratio isn't in (0, 1), or no unit is of a kind that is named.

    Example:
        >>> prune_cfg = dict(budget=dict(type='units', ratio=0.7))
        >>> prune_cfg = dict(budget=dict(type='units', ratio=dict(attention=0.7, mlp=0.5)))
    """

    quantity = 'units'

    def __init__(self, ratio: float | Mapping[str, float] = 0.3):
        self.by_kind: dict[str, float] = {}
        if isinstance(ratio, Mapping):
            if not ratio:
                raise UserError('prune_cfg.budget.ratio is an empty dict; name kinds of units')
            self.by_kind = {
                kind: checked_ratio(value, f'prune_cfg.budget.ratio.{kind}')
                for kind, value in ratio.items()
            }
            ratio = max(self.by_kind.values())
        super().__init__(ratio)

    @property
    def asked(self):
        """See :attr:`Budget.asked`; ``ratio`` is the largest of several, ``ratios`` has all."""
        asked = super().asked
        if not self.by_kind:
            return asked
        return {**asked, 'ratios': {kind: self.ratio_of(kind) for kind in self.by_kind}}

    def ratio_of(self, kind: str) -> float:
        """The fraction to remove of a kind of unit."""
        if not self.by_kind:
            return self.known_ratio
        return self.by_kind.get(kind, 0.0) * self.known_ratio / max(self.by_kind.values())

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        return UnitCost()

    def constraints(self, groups, cost):
        """One constraint per kind of unit: ``floor(n * (1 - ratio))`` of n units are kept at most."""
        kinds = dict.fromkeys(group.kind for group in groups)
        for kind in self.by_kind:
            if kind not in kinds:
                raise UserError(
                    f'prune_cfg.budget.ratio.{kind}: no units are of this kind; here are {", ".join(kinds)}'
                )
        result = []
        for kind in kinds:
            members = [g for g, group in enumerate(groups) if group.kind == kind]
            dense, ratio = sum(groups[g].size for g in members), self.ratio_of(kind)
            limit = int(dense * (1 - ratio) + 1e-9)
            kind_groups = tuple(groups[g] for g in members)
            what = f'{kind} units'
            result.append(Constraint(members, cost, limit, dense, ratio, what, kind_groups))
        return result
