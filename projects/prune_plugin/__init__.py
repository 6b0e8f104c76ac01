"""Pruning under MMEngine: units, criteria, budgets, allocators, hooks. Needs torch and mmengine."""

from . import (
    allocators,
    budgets,
    criteria,
    hooks,
    loops,
    lora,
    optim_wrapper,
    penalties,
    prune_runner,
    schedulers,
    schedules,
    sharded_runner,
    sparsifiers,
    units,
)
from .errors import DataNotFoundError, UserError
from .pruners import StructuredPruner, WeightPruner, build_pruner
from .registry import (
    ALLOCATORS,
    BUDGETS,
    COMPENSATIONS,
    CRITERIA,
    PENALTIES,
    PRUNERS,
    SCHEDULES,
    SPARSIFIERS,
    UNITS,
)
from .slim import build_slim_model, mask, slim
from .state import PruneState, compose
from .version import __version__

__all__ = [
    'ALLOCATORS',
    'BUDGETS',
    'COMPENSATIONS',
    'CRITERIA',
    'PENALTIES',
    'PRUNERS',
    'SCHEDULES',
    'SPARSIFIERS',
    'UNITS',
    'DataNotFoundError',
    'PruneState',
    'StructuredPruner',
    'UserError',
    'WeightPruner',
    '__version__',
    'allocators',
    'budgets',
    'build_pruner',
    'build_slim_model',
    'compose',
    'criteria',
    'hooks',
    'loops',
    'lora',
    'mask',
    'optim_wrapper',
    'penalties',
    'prune_runner',
    'schedulers',
    'schedules',
    'sharded_runner',
    'slim',
    'sparsifiers',
    'units',
]
