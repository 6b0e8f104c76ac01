"""Replacements for modules that can't run with other widths, and the table of converters.

A converter takes a module and returns its replacement, which shares the parameters under the same names.
Model families add theirs with ``CONVERTERS['Name'] = function``.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from . import inferred_sizes, maskable_router, skip_branch
from .eager_experts import to_eager_experts
from .empty_attention import EmptyAttention
from .skip_branch import SkipBranch
from .skip_layer import SkipLayer
from .slim_attention import SlimMultiheadAttention
from .slim_layer_norm import SlimLayerNorm
from .slim_rms_norm import SlimRMSNorm, to_slim_rms_norm


def to_slim_attention(module: nn.Module) -> SlimMultiheadAttention:
    """Convert ``nn.MultiheadAttention`` to :class:`SlimMultiheadAttention`; return a slim one unchanged."""
    if isinstance(module, SlimMultiheadAttention):
        return module
    return SlimMultiheadAttention(module)


def to_slim_layer_norm(module: nn.Module) -> SlimLayerNorm:
    """Convert ``nn.LayerNorm`` to :class:`SlimLayerNorm`; return a slim one unchanged."""
    return module if isinstance(module, SlimLayerNorm) else SlimLayerNorm(module)


CONVERTERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    'SlimMultiheadAttention': to_slim_attention,
    'SlimLayerNorm': to_slim_layer_norm,
    'SlimRMSNorm': to_slim_rms_norm,
    'EagerExperts': to_eager_experts,
    'SkipLayer': partial(skip_branch.to_skipped, name='SkipLayer'),
    'SkipBranch': partial(skip_branch.to_skipped, name='SkipBranch'),
    'EmptyAttention': EmptyAttention,
}


def converter_of(name: str) -> Callable[[nn.Module], nn.Module] | None:
    """The converter of that name, or None."""
    if inferred_sizes.parse(name) is not None:
        return partial(inferred_sizes.to_inferred_sizes, name=name)
    if (weight := maskable_router.parse(name)) is not None:
        return partial(maskable_router.to_maskable_router, weight=weight)
    if (skipped := skip_branch.parse(name)) is not None:
        return partial(skip_branch.to_skipped, name=skipped[0], outputs=skipped[1])
    return CONVERTERS.get(name)


#: Converters whose result is equivalent to the original module before anything is cut.
EQUIVALENT = frozenset({'SlimMultiheadAttention'})

__all__ = [
    'CONVERTERS',
    'converter_of',
    'EQUIVALENT',
    'EmptyAttention',
    'SkipBranch',
    'SkipLayer',
    'SlimLayerNorm',
    'SlimRMSNorm',
    'SlimMultiheadAttention',
]
