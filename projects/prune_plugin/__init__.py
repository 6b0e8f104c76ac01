"""Pruning under MMEngine: the public names. All other modules are private. Needs torch and mmengine."""

# Importing registers: hooks, loops, runners, schedulers, and every method of pruning.
from . import methods, structure, training, workflows
from .calibration.data import CalibrationData
from .calibration.loss import mmengine_loss
from .checkpoints.export.formats import save as export
from .checkpoints.model_loading import load_model
from .checkpoints.slim_model import build_slim_model
from .common.errors import DataNotFoundError, InfeasibleBudgetError, UserError
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
from .evaluation.test_set import TestSet
from .methods.allocators import Allocator, check_reachable, greedy, rounded_floors
from .methods.budgets import Budget, Constraint
from .methods.compensation import Compensation
from .methods.criteria import Criterion
from .methods.penalties import Penalty
from .methods.pruners import StructuredPruner, WeightPruner, build_pruner
from .methods.schedules import Schedule
from .methods.sparsifiers import Sparsifier
from .methods.weight_masks import keep_largest
from .structure.prune_state import PruneState, compose
from .structure.slimming import mask, slim
from .structure.unit_group import Attr, Cut, UnitGroup, named_tensors, sum_per_unit, weight_cuts
from .structure.units import (
    AttentionHeads,
    BottleneckChannels,
    BranchNeurons,
    CoupledChannels,
    DeformableHeads,
    FFNNeurons,
    FPNChannels,
    NotPrunable,
    PreNormLayers,
    SamplingPoints,
    StackedChannels,
    UnitFinder,
)
from .structure.units.finder import defined_by, join, require
from .workflows.compare import compare
from .workflows.evaluate import evaluate
from .workflows.options import PruneOptions, PruneResult
from .workflows.prune import prune_to_files as prune
from .workflows.sensitivity import analyse as analyse_sensitivity
from .workflows.train import train

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
    'Allocator',
    'AttentionHeads',
    'Attr',
    'BottleneckChannels',
    'BranchNeurons',
    'Budget',
    'CalibrationData',
    'Compensation',
    'Constraint',
    'CoupledChannels',
    'Criterion',
    'Cut',
    'DataNotFoundError',
    'DeformableHeads',
    'FFNNeurons',
    'FPNChannels',
    'InfeasibleBudgetError',
    'NotPrunable',
    'Penalty',
    'PreNormLayers',
    'PruneOptions',
    'PruneResult',
    'PruneState',
    'SamplingPoints',
    'Schedule',
    'Sparsifier',
    'StackedChannels',
    'StructuredPruner',
    'TestSet',
    'UnitFinder',
    'UnitGroup',
    'UserError',
    'WeightPruner',
    '__version__',
    'analyse_sensitivity',
    'build_pruner',
    'build_slim_model',
    'check_reachable',
    'compare',
    'compose',
    'defined_by',
    'evaluate',
    'export',
    'greedy',
    'join',
    'keep_largest',
    'load_model',
    'mask',
    'mmengine_loss',
    'named_tensors',
    'prune',
    'require',
    'rounded_floors',
    'slim',
    'sum_per_unit',
    'train',
    'weight_cuts',
]
