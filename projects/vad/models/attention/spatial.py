"""Spatial cross-attention of BEV queries to the cameras that see them."""

from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..bev_geometry import CameraHits
from .deformable import DeformableAttention, cells
from .sampling import deformable_sampling


@MODELS.register_module()
class MSDeformableAttention3D(DeformableAttention):
    """Deformable attention to camera features, around several heights of a BEV cell's pillar.

    Point p of a head samples around height ``p % heights``, so ``num_points`` is a multiple of the
    number of heights. It has no output projection; :class:`SpatialCrossAttention` has.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 8,
        head_dim: int | None = None,
    ):
        super().__init__(
            embed_dims, num_heads, num_levels, num_points, head_dim, 0.0, project_output=False
        )

    def forward(
        self, query: Tensor, value: Tensor, hits: CameraHits, shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """What each pair of a BEV query and a camera that sees it gathers.

        Args:
            query: ``(B, Q, embed_dims)``.
            value: ``(B * cameras, n, embed_dims)``.
            hits: The pairs, R in all.
            shapes: Height and width of each level.

        Returns:
            ``(R, heads * head_dim)``.
        """
        offsets, weights = (x.squeeze(2) for x in self.offsets_and_weights(query.flatten(0, 1)))
        offsets = offsets / cells(shapes, query)[:, None]
        heights = hits.points.shape[1]
        offsets = offsets[hits.query].unflatten(-2, (-1, heights))
        locations = (hits.points[:, None, None, None] + offsets).flatten(-3, -2)
        return deformable_sampling(
            self.heads_of(value), shapes, locations, weights[hits.query], hits.rows
        )


@MODELS.register_module()
class SpatialCrossAttention(nn.Module):
    """BEVFormer's spatial cross-attention (https://arxiv.org/abs/2203.17270, section 3.3).

    Args:
        embed_dims: Width of queries and outputs.
        deformable_attention: Config of the attention to one camera.
        dropout: Of the output.
    """

    def __init__(self, deformable_attention: dict, embed_dims: int = 256, dropout: float = 0.1):
        super().__init__()
        self.embed_dims = embed_dims
        self.deformable_attention = MODELS.build(deformable_attention)
        inner = self.deformable_attention
        self.output_proj = nn.Linear(inner.num_heads * inner.head_dim, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for the output projection; the inner attention sets its own."""
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(
        self, query: Tensor, value: Tensor, hits: CameraHits, shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Attend to the cameras, take the mean over those that see a query, add the query.

        Args:
            query: ``(B, Q, embed_dims)``.
            value: ``(B * cameras, n, embed_dims)``.
            hits: Which camera sees which query, and where.
            shapes: Height and width of each level of ``value``.

        Returns:
            ``(B, Q, embed_dims)``; queries that no camera sees get the projection's bias.
        """
        seen = self.deformable_attention(query, value, hits, shapes)
        slots = seen.new_zeros(query.shape[0] * query.shape[1], seen.shape[-1])
        slots = torch.index_add(slots, 0, hits.query, seen)
        slots = slots.view(*query.shape[:2], -1) / hits.cameras[..., None]
        return self.dropout(self.output_proj(slots)) + query
