"""The methods of pruning, one folder per key of prune_cfg."""

from . import (
    allocators,
    budgets,
    compensation,
    criteria,
    penalties,
    pruners,
    schedules,
    sparsifiers,
)
