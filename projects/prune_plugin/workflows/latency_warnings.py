"""Warnings about a pruned model's speed."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import nn

from ..common.precision import HALF
from ..methods.budgets import BudgetResult
from ..structure.prune_state import PruneState

#: Matrix products in half precision run on tensor cores at widths that are multiples of this.
TENSOR_CORE_WIDTH = 8
#: By how much the fraction of the time that is removed may differ from what was asked.
TOLERANCE = 0.05


def odd_widths(state: PruneState) -> list[str]:
    """Names of the pruned groups that leave a width which is no multiple of eight."""
    return [
        group.name
        for group in state.reduced
        if any(
            cut.dim is not None and (len(state.kept[group.name]) * cut.per_unit) % TENSOR_CORE_WIDTH
            for cut in group.cuts
        )
    ]


def warn_of_odd_widths(model: nn.Module, state: PruneState | None) -> None:
    """Warn of widths that half precision is slow at, if the model has such weights on a GPU."""
    first = next(model.parameters(), None)
    if state is None or first is None or first.device.type == 'cpu' or first.dtype not in HALF:
        return
    names = odd_widths(state)
    if names:
        print_log(
            f'{len(names)} pruned groups, such as {names[0]}, keep a width that is no multiple of '
            f'{TENSOR_CORE_WIDTH}, at which half precision is slow on GPUs; set '
            f'prune_cfg.round_to={TENSOR_CORE_WIDTH}',
            'current',
            logging.WARNING,
        )


def warn_of_missed_latency(result: BudgetResult, profiles: Sequence[Mapping[str, Any]]) -> None:
    """Warn if the measured time isn't what a latency budget asked for.

    Args:
        result: Of the budget: an estimate from the sum of modules, or, in another engine than PyTorch,
            measured.
        profiles: Of the dense and the pruned model.
    """
    removed = measured_share(result, profiles)
    if result.asked is not None and removed is not None and abs(removed - result.asked) > TOLERANCE:
        print_log(
            f'prune_cfg.budget asked for {result.asked:.1%} of the {result.quantity} to be removed, but '
            f'{removed:.1%} was measured: the modules are too small to be timed one by one, or the '
            'machine is busy; raise prune_cfg.profile.batch_size or prune_cfg.budget.seconds',
            'current',
            logging.WARNING,
        )


def measured_share(result: BudgetResult, profiles: Sequence[Mapping[str, Any]]) -> float | None:
    """The fraction of the time that was measured to be gone; None for other budgets, and where it wasn't.

    Args:
        result: See :func:`warn_of_missed_latency`, like ``profiles``.
    """
    if result.quantity.startswith('latency in '):
        return result.achieved
    times = [profile['latency_ms'] for profile in profiles]
    if result.quantity != 'latency' or len(times) < 2 or None in times:
        return None
    return 1 - times[1] / times[0]
