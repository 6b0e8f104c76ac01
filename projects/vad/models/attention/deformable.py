"""Deformable attention: what all variants share, and the one of the decoders."""

import math
from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..on_device import constant
from .sampling import deformable_sampling


def offset_bias(heads: int, levels: int, points: int) -> Tensor:
    """Initial offsets ``(heads * levels * points * 2,)``: each head looks its own way.

    Point p starts p + 1 steps out; a step is 1 along the larger axis (Deformable DETR).
    """
    angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    direction = torch.stack([angles.cos(), angles.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1, dtype=torch.float32)
    grid = direction[:, None, None, :] * steps[None, None, :, None]
    return grid.expand(heads, levels, points, 2).reshape(-1)


class DeformableAttention(nn.Module):
    """The projections of deformable attention.

    The heads' inner width (``num_heads * head_dim``) is independent of ``embed_dims``, so heads can
    be removed.

    Args:
        embed_dims: Width of queries, values and outputs.
        num_heads: Attention heads.
        num_levels: Feature levels.
        num_points: Sampling points per head and level.
        head_dim: Width of a head; ``embed_dims // num_heads`` if None.
        dropout: Of the output.
        query_width: Width of what offsets and weights are computed from; embed_dims if None.
        maps: Feature maps that one query samples (2 in temporal self-attention).
        project_output: Whether there is an ``output_proj``.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        head_dim: int | None = None,
        dropout: float = 0.1,
        query_width: int | None = None,
        maps: int = 1,
        project_output: bool = True,
    ):
        super().__init__()
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.head_dim = head_dim or embed_dims // num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.maps = maps
        samples = maps * num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(query_width or embed_dims, samples * 2)
        self.attention_weights = nn.Linear(query_width or embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, num_heads * self.head_dim)
        if project_output:
            self.output_proj = nn.Linear(num_heads * self.head_dim, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets in fixed directions, uniform weights, Xavier projections."""
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(
                offset_bias(self.num_heads, self.num_levels * self.maps, self.num_points)
            )
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for name in ('value_proj', 'output_proj'):
            projection = getattr(self, name, None)
            if projection is not None:
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    def heads_of(self, value: Tensor) -> Tensor:
        """Project values ``(B, n, embed_dims)`` to ``(B, n, heads, head_dim)``."""
        return self.value_proj(value).unflatten(-1, (self.num_heads, self.head_dim))

    def offsets_and_weights(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """For queries ``(..., query_width)`` where to look, in cells, and how much each counts.

        Returns:
            ``(..., heads, maps, levels, points, 2)`` and the same without the last dimension;
            weights sum to 1 over a head's levels and points.
        """
        inner = (self.num_heads, self.maps, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*inner, 2))
        weights = self.attention_weights(query).unflatten(-1, (*inner[:2], -1)).softmax(-1)
        return offsets, weights.unflatten(-1, inner[2:])


def cells(shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """Width and height of each level, ``(levels, 2)``: what offsets in cells are divided by."""
    return constant(tuple((width, height) for height, width in shapes), like)


@MODELS.register_module()
class CustomMSDeformableAttention(DeformableAttention):
    """Cross-attention of object and map queries to the BEV (Deformable DETR's, one level)."""

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Attend, and add the query.

        Args:
            query: ``(B, Q, embed_dims)``.
            value: ``(B, n, embed_dims)``.
            query_pos: As ``query``.
            reference_points: ``(B, Q, 2)``, x and y in [0, 1].
            shapes: Height and width of each level of ``value``.

        Returns:
            ``(B, Q, embed_dims)``.
        """
        offsets, weights = (x.squeeze(3) for x in self.offsets_and_weights(query + query_pos))
        places = reference_points[:, :, None, None, None]
        locations = places + offsets / cells(shapes, query)[:, None]
        out = deformable_sampling(self.heads_of(value), shapes, locations, weights)
        return self.dropout(self.output_proj(out)) + query
