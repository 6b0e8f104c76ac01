"""Unit finders, one kind of unit per file."""

from ..unit_group import Attr, Cut, UnitGroup, named_tensors, sum_per_unit, weight_cuts
from . import (
    coupled,
    csp,
    deformable,
    dense_heads,
    ffn,
    fpn,
    hf_attention,
    mlp_branches,
    point_stacks,
    prenorm_layers,
)
from .attention import AttentionHeads
from .conv_stacks import StackedChannels
from .coupled import CoupledChannels
from .deformable import DeformableHeads, SamplingPoints
from .ffn import FFNNeurons
from .finder import NotPrunable, UnitFinder, discover
from .fpn import FPNChannels
from .mlp_branches import BranchNeurons
from .prenorm_layers import PreNormLayers, PreNormSublayers
from .residual_blocks import BottleneckChannels

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
    'PreNormSublayers',
    'SamplingPoints',
    'StackedChannels',
    'UnitFinder',
    'UnitGroup',
    'mlp_branches',
    'coupled',
    'csp',
    'deformable',
    'discover',
    'ffn',
    'fpn',
    'hf_attention',
    'point_stacks',
    'prenorm_layers',
    'named_tensors',
    'sum_per_unit',
    'dense_heads',
    'weight_cuts',
]
