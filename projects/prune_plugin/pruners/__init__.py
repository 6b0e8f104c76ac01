"""The two pruners that a ``prune_cfg`` names: whole units, or single weights."""

from .base import DataFactory, Pruner, as_patterns, build_pruner
from .structured import Plan, StructuredPruner
from .weights import WeightPruner

__all__ = [
    'DataFactory',
    'Plan',
    'Pruner',
    'StructuredPruner',
    'WeightPruner',
    'as_patterns',
    'build_pruner',
]
