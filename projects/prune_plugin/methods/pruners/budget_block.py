"""The `budget` block of a `prune_cfg`, read before it is built."""

from collections.abc import Mapping
from typing import Any

from ...common.errors import UserError
from ...common.registry import BUDGETS
from ...common.validation import is_number


def with_ratio(budget: Mapping) -> dict[str, Any]:
    """A budget block whose ``density``, the fraction KEPT, has become a ratio, the fraction removed.

    Raises:
        UserError: both are given, or a word that some read as the one and some as the other.
    """
    budget = dict(budget)
    if 'ratios' in budget:
        raise UserError(
            f'prune_cfg.budget.ratios={budget["ratios"]!r} goes with a StructuredPruner; for single '
            "weights take schedule=dict(type='Steps', ratios=...)"
        )
    if 'sparsity' in budget:
        raise UserError(
            f'prune_cfg.budget.sparsity={budget["sparsity"]!r} is ambiguous; give ratio, the fraction '
            'removed, or density, the fraction kept'
        )
    if 'density' not in budget:
        return budget
    density = budget.pop('density')
    if 'ratio' in budget:
        raise UserError(
            f'prune_cfg.budget has ratio={budget["ratio"]!r} (the fraction removed) and '
            f'density={density!r} (the fraction kept); give one of them'
        )
    if not is_number(density) or not 0 < density < 1:
        raise UserError(
            f'prune_cfg.budget.density is {density!r}; it must be a number in (0, 1), the fraction kept'
        )
    budget['ratio'] = round(1 - density, 12)
    return budget


def is_searched(budget: Mapping) -> bool:
    """Whether a budget block is of a type that looks for its ratio."""
    return getattr(BUDGETS.module_dict.get(str(budget.get('type'))), 'searched', False)


def check_searched(budget: Mapping, schedule: str | None) -> None:
    """Raise :class:`UserError` for what doesn't go with a budget that looks for its ratio.

    Args:
        budget: Its block.
        schedule: The type of a schedule of rounds; None: pruning is done at once.
    """
    kind = f'prune_cfg.budget.type {budget["type"]!r}, which looks for the ratio itself'
    if 'ratio' in budget:
        raise UserError(
            f'prune_cfg.budget.ratio={budget["ratio"]!r} (or --pruning-ratio) does not go with '
            f'{kind}; leave it out, or give low and high'
        )
    if schedule:
        raise UserError(
            f'prune_cfg.schedule.type {schedule!r} does not go with {kind}; take OneShot'
        )


def other_budgets(name: str, searched: bool) -> list[str]:
    """The registered budgets but ``name``; within a searched one also without those that search."""
    kinds = BUDGETS.module_dict.items()
    return [kind for kind, cls in kinds if kind != name and not (searched and cls.searched)]
