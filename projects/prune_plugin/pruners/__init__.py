"""The two pruners that a ``prune_cfg`` names: whole units, or single weights."""

from .base import DataFactory, Pruner, as_patterns, build_pruner
from .plan import Plan, Survey
from .structured import StructuredPruner
from .weights import WeightPruner

__all__ = [
    'DataFactory',
    'Plan',
    'Pruner',
    'StructuredPruner',
    'Survey',
    'WeightPruner',
    'as_patterns',
    'build_pruner',
]
