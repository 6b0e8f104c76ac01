"""Kinds of units, one per file."""

from . import coupled, ffn, gqa, layer
from .attention import AttentionHeads
from .base import Attr, Cut, UnitGroup, named_tensors, sum_per_unit, weight_cuts
from .conv import BottleneckChannels
from .coupled import CoupledChannels
from .ffn import FFNNeurons
from .finder import NotPrunable, UnitFinder, discover
from .layer import PreNormLayers

__all__ = [
    'Attr',
    'AttentionHeads',
    'BottleneckChannels',
    'CoupledChannels',
    'Cut',
    'FFNNeurons',
    'NotPrunable',
    'PreNormLayers',
    'UnitFinder',
    'UnitGroup',
    'coupled',
    'discover',
    'ffn',
    'gqa',
    'layer',
    'named_tensors',
    'sum_per_unit',
    'weight_cuts',
]
