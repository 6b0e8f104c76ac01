"""Kinds of units, one per file."""

from . import branches, coupled, csp, deformable, ffn, fpn, gqa, layer, towers
from .attention import AttentionHeads
from .base import Attr, Cut, UnitGroup, named_tensors, sum_per_unit, weight_cuts
from .branches import BranchNeurons
from .conv import BottleneckChannels
from .coupled import CoupledChannels
from .deformable import DeformableHeads, SamplingPoints
from .ffn import FFNNeurons
from .finder import NotPrunable, UnitFinder, discover
from .fpn import FPNChannels
from .layer import PreNormLayers
from .stacks import StackedChannels

__all__ = [
    'Attr',
    'AttentionHeads',
    'BottleneckChannels',
    'BranchNeurons',
    'CoupledChannels',
    'Cut',
    'DeformableHeads',
    'FFNNeurons',
    'FPNChannels',
    'NotPrunable',
    'PreNormLayers',
    'SamplingPoints',
    'StackedChannels',
    'UnitFinder',
    'UnitGroup',
    'branches',
    'coupled',
    'csp',
    'deformable',
    'discover',
    'ffn',
    'fpn',
    'gqa',
    'layer',
    'named_tensors',
    'sum_per_unit',
    'towers',
    'weight_cuts',
]
