"""Modules that take the place of ones that can't be cut, and the table of converters.

A converter takes the module that stands there and returns the one that takes its place, sharing its
parameters under the same names. Families add theirs with ``CONVERTERS['Name'] = function``.
"""

from collections.abc import Callable

from torch import nn

from .empty_attention import EmptyAttention
from .skip_layer import SkipLayer, cache_index
from .slim_attention import SlimMultiheadAttention
from .slim_layer_norm import SlimLayerNorm


def to_slim_attention(module: nn.Module) -> SlimMultiheadAttention:
    """``nn.MultiheadAttention`` -> :class:`SlimMultiheadAttention`; a slim one stays as it is."""
    if isinstance(module, SlimMultiheadAttention):
        return module
    return SlimMultiheadAttention(module)


def to_slim_layer_norm(module: nn.Module) -> SlimLayerNorm:
    """``nn.LayerNorm`` -> :class:`SlimLayerNorm`; a slim one stays as it is."""
    return module if isinstance(module, SlimLayerNorm) else SlimLayerNorm(module)


def to_skip_layer(module: nn.Module) -> SkipLayer:
    """Any layer -> :class:`SkipLayer`."""
    return SkipLayer(cache_index(module))


CONVERTERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    'SlimMultiheadAttention': to_slim_attention,
    'SlimLayerNorm': to_slim_layer_norm,
    'SkipLayer': to_skip_layer,
    'EmptyAttention': EmptyAttention,
}

#: Converters whose result computes the same as long as nothing has been cut.
EQUIVALENT = frozenset({'SlimMultiheadAttention'})

__all__ = [
    'CONVERTERS',
    'EQUIVALENT',
    'EmptyAttention',
    'SkipLayer',
    'SlimLayerNorm',
    'SlimMultiheadAttention',
]
