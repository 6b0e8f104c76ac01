"""Attention heads of timm's ViT attention and of PyTorch's multi-head attention (mmcv wraps it)."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Attr, Cut, UnitGroup
from .finder import UnitFinder, join, require


@UNITS.register_module()
class AttentionHeads(UnitFinder):
    """Attention heads; with grouped-query attention a unit is a KV head with all its query heads.

    Example:
        >>> prune_cfg = dict(units=[dict(type='AttentionHeads')])
    """


def linear_cuts(
    prefix: str, linear: nn.Linear, side: str, width: int, sections: tuple[int, ...] = (0,)
) -> list[Cut]:
    """Cuts of a linear layer: rows and bias for ``side='in'``, columns for ``side='out'``.

    Args:
        prefix: The layer's name in the model.
        linear: The layer.
        side: Whether the layer computes the units (``'in'``) or takes them as input (``'out'``).
        width: Rows or columns per unit and section.
        sections: See :class:`Cut`.
    """
    if side == 'out':
        return [Cut(f'{prefix}.weight', 1, width, sections, side)]
    cuts = [Cut(f'{prefix}.weight', 0, width, sections)]
    if linear.bias is not None:
        cuts.append(Cut(f'{prefix}.bias', 0, width, sections))
    return cuts


@AttentionHeads.layout('Attention')
def timm_attention(name: str, module: nn.Module) -> list[UnitGroup]:
    """timm's ``Attention``: fused ``qkv`` with rows ordered [q | k | v] x head x head_dim, and ``proj``."""
    qkv, proj = getattr(module, 'qkv', None), getattr(module, 'proj', None)
    require(isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear), 'no fused qkv and proj')
    require(hasattr(module, 'attn_dim'), 'this timm reshapes to the embedding width')
    require(isinstance(module.norm, nn.Identity), 'a norm stands between the heads and proj')
    heads, width = module.num_heads, module.head_dim
    inner = heads * width
    cuts = linear_cuts(join(name, 'qkv'), qkv, 'in', width, (0, inner, 2 * inner))
    if getattr(module, 'gate', None) is not None:
        cuts += linear_cuts(join(name, 'gate'), module.gate, 'in', width)
    cuts += linear_cuts(join(name, 'proj'), proj, 'out', width)
    attrs = (Attr(name, 'num_heads'), Attr(name, 'attn_dim', width))
    return [UnitGroup(name, 'attention', heads, tuple(cuts), name, attrs)]


@AttentionHeads.layout('MultiheadAttention', 'SlimMultiheadAttention')
def torch_attention(name: str, module: nn.Module) -> list[UnitGroup]:
    """``nn.MultiheadAttention`` or its slim replacement.

    mmcv's wrapper has the same class name; PyTorch's module inside it (``attn``) is found separately.
    """
    if not hasattr(module, 'out_proj'):
        return []
    require(
        getattr(module, 'bias_k', None) is None and not getattr(module, 'add_zero_attn', False),
        'bias_k, bias_v and add_zero_attn are not handled',
    )
    if module.in_proj_weight is not None:
        cuts = fused_cuts(name, module)
    else:
        width = module.head_dim
        cuts = [Cut(join(name, f'{part}_proj_weight'), 0, width) for part in 'qkv']
        if module.in_proj_bias is not None:
            inner = module.num_heads * width
            cuts.append(Cut(join(name, 'in_proj_bias'), 0, width, (0, inner, 2 * inner)))
        cuts += linear_cuts(join(name, 'out_proj'), module.out_proj, 'out', width)
    cuts.append(Cut(join(name, 'head_index'), 0, side='index'))
    converts = ((name, 'SlimMultiheadAttention'),)
    attrs = (Attr(name, 'num_heads'),)
    return [UnitGroup(name, 'attention', module.num_heads, tuple(cuts), name, attrs, converts)]


def fused_cuts(name: str, module: nn.Module) -> list[Cut]:
    """Cuts of a fused ``in_proj_weight`` (queries, keys and values) and of ``out_proj``."""
    width = module.head_dim
    sections = tuple(part * module.num_heads * width for part in range(3))
    cuts = [Cut(join(name, 'in_proj_weight'), 0, width, sections)]
    if module.in_proj_bias is not None:
        cuts.append(Cut(join(name, 'in_proj_bias'), 0, width, sections))
    return cuts + linear_cuts(join(name, 'out_proj'), module.out_proj, 'out', width)
