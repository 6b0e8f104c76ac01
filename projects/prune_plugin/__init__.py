"""Pruning under MMEngine: the public names. All other modules are private. Needs torch and mmengine."""

# Importing registers: hooks, loops, runners, schedulers, and every method of pruning.
from . import methods, structure, training, workflows
from .calibration.data import CalibrationData
from .calibration.loss import mmengine_loss
from .checkpoints.checkpoint_file import load_file as load_checkpoint
from .checkpoints.checkpoint_file import load_weights, prune_state_of
from .checkpoints.export.formats import Exports
from .checkpoints.export.formats import save as export
from .checkpoints.model_loading import load_model
from .checkpoints.saving import save_checkpoint
from .checkpoints.slim_model import build_slim_model
from .common.errors import DataNotFoundError, InfeasibleBudgetError, UserError
from .common.registry import (
    ALLOCATORS,
    BUDGETS,
    COMPENSATIONS,
    CRITERIA,
    PENALTIES,
    PRUNERS,
    RECONSTRUCTIONS,
    SCHEDULES,
    SPARSIFIERS,
    UNITS,
)
from .common.version import __version__
from .evaluation.settings import ProfileSettings
from .evaluation.test_set import TestSet
from .methods.allocators import Allocator, check_reachable, greedy, rounded_floors
from .methods.budgets import Budget, BudgetResult, Constraint, ProductCost, product_cost
from .methods.compensation import Compensation
from .methods.criteria import Criterion
from .methods.penalties import Penalty
from .methods.pruners import StructuredPruner, WeightPruner, build_pruner
from .methods.reconstruction import Reconstruction
from .methods.schedules import Schedule
from .methods.sparsifiers import Sparsifier
from .methods.weight_masks import keep_largest
from .structure.prunable_weights import check_finite
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
    PreNormSublayers,
    SamplingPoints,
    StackedChannels,
    UnitFinder,
)
from .structure.units.attention import fused_cuts
from .structure.units.coverage import uncovered
from .structure.units.deformable import head_group, point_group
from .structure.units.finder import defined_by, join, require
from .structure.units.mlp_branches import hidden_features
from .workflows.compare import compare
from .workflows.curve import CurveOptions, draw_curve
from .workflows.evaluate import evaluate
from .workflows.options import PruneOptions, PruneResult, SearchResult
from .workflows.prune import prune, pruner_from_config, search_ratio
from .workflows.run_report import RunReport
from .workflows.sensitivity import SensitivityOptions
from .workflows.sensitivity import analyse as analyse_sensitivity
from .workflows.train import train

__all__ = [
    'ALLOCATORS',
    'BUDGETS',
    'COMPENSATIONS',
    'CRITERIA',
    'PENALTIES',
    'PRUNERS',
    'RECONSTRUCTIONS',
    'SCHEDULES',
    'SPARSIFIERS',
    'UNITS',
    'Allocator',
    'AttentionHeads',
    'Attr',
    'BottleneckChannels',
    'BranchNeurons',
    'Budget',
    'BudgetResult',
    'CalibrationData',
    'Compensation',
    'Constraint',
    'CoupledChannels',
    'Criterion',
    'CurveOptions',
    'Cut',
    'DataNotFoundError',
    'DeformableHeads',
    'Exports',
    'FFNNeurons',
    'FPNChannels',
    'InfeasibleBudgetError',
    'NotPrunable',
    'Penalty',
    'PreNormLayers',
    'PreNormSublayers',
    'ProductCost',
    'ProfileSettings',
    'PruneOptions',
    'PruneResult',
    'PruneState',
    'Reconstruction',
    'RunReport',
    'SamplingPoints',
    'Schedule',
    'SearchResult',
    'SensitivityOptions',
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
    'check_finite',
    'check_reachable',
    'compare',
    'compose',
    'defined_by',
    'draw_curve',
    'evaluate',
    'export',
    'fused_cuts',
    'greedy',
    'head_group',
    'hidden_features',
    'join',
    'keep_largest',
    'load_checkpoint',
    'load_model',
    'load_weights',
    'mask',
    'mmengine_loss',
    'named_tensors',
    'point_group',
    'product_cost',
    'prune',
    'prune_state_of',
    'pruner_from_config',
    'require',
    'rounded_floors',
    'save_checkpoint',
    'search_ratio',
    'slim',
    'sum_per_unit',
    'train',
    'uncovered',
    'weight_cuts',
]
