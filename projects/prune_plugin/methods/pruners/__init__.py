"""The two pruners that a ``prune_cfg`` names: whole units, or single weights."""

from .base import Pruner
from .building import build_pruner
from .data_source import DataFactory, DataUser
from .plan import Plan, Pruned, ScoredUnits, UnitPlan, WeightPlan
from .selection import Rows, Selection
from .structured import StructuredPruner
from .unstructured import WeightPruner

__all__ = [
    'DataFactory',
    'Plan',
    'Pruner',
    'StructuredPruner',
    'ScoredUnits',
    'WeightPruner',
    'build_pruner',
]
