"""Heads and sampling points of VAD's attention modules."""

from torch import nn

from projects.prune_plugin import (
    AttentionHeads,
    Attr,
    DeformableHeads,
    SamplingPoints,
    UnitGroup,
    fused_cuts,
    head_group,
    join,
    point_group,
)

from ..models import MSDeformableAttention3D


@AttentionHeads.layout('HeadAttention')
def attention_heads(name: str, module: nn.Module) -> list[UnitGroup]:
    """Attention between queries; its inner width is its own, so nothing has to be replaced."""
    cuts, attrs = tuple(fused_cuts(name, module)), (Attr(name, 'num_heads'),)
    return [UnitGroup(name, 'attention', module.num_heads, cuts, name, attrs)]


@DeformableHeads.layout('TemporalSelfAttention', 'CustomMSDeformableAttention')
def deformable_heads(name: str, module: nn.Module) -> list[UnitGroup]:
    """Attention to the BEV, now and before."""
    return [head_group(name, module)]


@DeformableHeads.layout('SpatialCrossAttention')
def spatial_heads(name: str, module: nn.Module) -> list[UnitGroup]:
    """Attention to the cameras: the output projection stands outside, behind the mean over cameras."""
    return [head_group(name, module, 'deformable_attention', join(name, 'deformable_attention'))]


@SamplingPoints.layout('TemporalSelfAttention', 'CustomMSDeformableAttention')
def points(name: str, module: nn.Module) -> list[UnitGroup]:
    """Points on the BEV."""
    return [point_group(name, module, module.maps)]


@SamplingPoints.layout('BEVFormerEncoder')
def pillar_points(name: str, encoder: nn.Module) -> list[UnitGroup]:
    """Points in the cameras: point p looks around height ``p % heights`` of a pillar.

    So that the others keep their heights, one point of every height goes at a time.
    """
    heights = encoder.num_points_in_pillar
    return [
        point_group(join(name, path), module, module.maps, heights)
        for path, module in encoder.named_modules()
        if isinstance(module, MSDeformableAttention3D)
    ]
