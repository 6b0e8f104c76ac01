"""What doesn't go together in the blocks of a StructuredPruner."""

from typing import Any

from ...calibration.statistics import GRADIENT_STATISTICS
from ...common.errors import UserError
from .budget_block import other_budgets


def check_criterion(pruner: Any) -> None:
    """Raise :class:`UserError` for a criterion that doesn't go with a pruner's other blocks, or its budget.

    Args:
        pruner: A StructuredPruner, with criterion, budget and calibration.
    """
    name = type(pruner.criterion).__name__
    if pruner.calibration.loss_weights and not pruner.criterion.needed & GRADIENT_STATISTICS:
        raise UserError(
            f'prune_cfg.calibration.loss_weights does nothing for {name}, which reads no gradients; '
            'leave it out or take Taylor or Fisher'
        )
    key, quantity = pruner.limited
    if quantity == 'weights':
        raise UserError(
            f"{key} is {quantity!r}, which a StructuredPruner can't use; valid are "
            f'{", ".join(other_budgets(quantity, bool(pruner.searched)))}'
        )
    if pruner.searched and pruner.criterion.reads_ratio:
        raise UserError(
            f'prune_cfg.criterion {name} scores by the ratio, which prune_cfg.budget.type '
            f'{pruner.budget.quantity!r} has yet to find; take another'
        )


def check_empty_layers(remove: bool, min_keep: int) -> None:
    """Raise :class:`UserError` for a ``remove_empty_layers`` that is no bool, or can empty none."""
    if not isinstance(remove, bool):
        raise UserError(f'prune_cfg.remove_empty_layers is {remove!r}; it must be True or False')
    if remove and min_keep:
        raise UserError(
            f'prune_cfg.remove_empty_layers needs min_keep=0, but it is {min_keep}, so no layer '
            'can be emptied'
        )


def check_without_weights(pruner: Any) -> None:
    """Raise :class:`UserError` for a budget that shapes alone can't meet.

    Args:
        pruner: A StructuredPruner.
    """
    if pruner.searched:
        raise UserError(
            f'--meta: prune_cfg.budget.type {pruner.budget.quantity!r} evaluates models, which needs '
            'weights and data; take a params or flops budget'
        )
    if pruner.budget.measured:
        raise UserError(
            '--meta: nothing can be timed without weights; take a params or flops budget'
        )
