"""Temporal self-attention of BEV queries over the previous and the current BEV."""

import torch
from mmengine.registry import MODELS
from torch import Tensor

from .deformable import DeformableAttention, cells
from .sampling import deformable_sampling


@MODELS.register_module()
class TemporalSelfAttention(DeformableAttention):
    """BEVFormer's temporal self-attention (https://arxiv.org/abs/2203.17270, section 3.4).

    Each query samples the previous and the current BEV and takes the mean of the two. Offsets and
    weights come from the previous BEV's feature beside the query itself.

    Args:
        embed_dims: Width of the BEV.
        num_heads: Attention heads.
        num_levels: Levels of the BEV: 1.
        num_points: Sampling points per head and BEV.
        head_dim: Width of a head; ``embed_dims // num_heads`` if None.
        dropout: Of the output.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 1,
        num_points: int = 4,
        head_dim: int | None = None,
        dropout: float = 0.1,
    ):
        super().__init__(
            embed_dims,
            num_heads,
            num_levels,
            num_points,
            head_dim,
            dropout,
            query_width=2 * embed_dims,
            maps=2,
        )

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        shape: tuple[int, int],
        history: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend, and add the query.

        Args:
            query: ``(B, h * w, embed_dims)``.
            query_pos: As ``query``.
            reference_points: ``(B, h * w, 2)``, x and y in [0, 1].
            shape: h and w.
            history: The previous BEV and the initial BEV queries, both as ``query``; without it the
                query stands for both.

        Returns:
            ``(B, h * w, embed_dims)``.
        """
        previous, current = history or (query, query)
        positioned = query + query_pos
        offsets, weights = self.offsets_and_weights(torch.cat([previous, positioned], -1))
        places = reference_points[:, :, None, None, None, None]
        locations = places + offsets / cells([shape], query)[:, None]
        sampled = [
            deformable_sampling(values, [shape], locations[:, :, :, i], weights[:, :, :, i])
            for i, values in enumerate(self.values_of(previous, current))
        ]
        out = (sampled[0] + sampled[1]) / 2
        return self.dropout(self.output_proj(out)) + query

    def values_of(self, previous: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Both projected, once if they are the same."""
        first = self.heads_of(previous)
        return first, first if current is previous else self.heads_of(current)
