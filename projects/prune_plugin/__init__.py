"""Pruning under MMEngine: units, criteria, budgets, allocators, hooks. Needs torch and mmengine."""

from .checkpoints.slim_model import build_slim_model
from .common.errors import DataNotFoundError, UserError
from .common.registry import (
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
from .common.version import __version__
from .methods import allocators, budgets, criteria, penalties, schedules, sparsifiers
from .methods.pruners import StructuredPruner, WeightPruner, build_pruner
from .structure import units
from .structure.prune_state import PruneState, compose
from .structure.slimming import mask, slim
from .training import bf16_optim_wrapper, hooks, loops, lr_schedulers
from .training.lora import adapters
from .training.sharding import runner
from .workflows import iterative_prune, prune_runner

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
    'build_pruner',
    'build_slim_model',
    'compose',
    'mask',
    'slim',
]
