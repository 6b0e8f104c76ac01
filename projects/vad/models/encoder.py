"""BEVFormer's encoder: BEV queries look at the previous BEV and at the cameras."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.cnn.bricks.transformer import FFN
from mmengine.registry import MODELS
from torch import Tensor, nn

from .bev_geometry import CameraHits, HitsCache, grid_points, pillar_points


@MODELS.register_module()
class BEVFormerLayer(nn.Module):
    """Temporal self-attention, spatial cross-attention and FFN, each followed by a norm.

    Args:
        self_attn: Config of the temporal self-attention.
        cross_attn: Config of the spatial cross-attention.
        embed_dims: Width of the BEV.
        feedforward_channels: Hidden width of the FFN.
        dropout: Of the FFN.
    """

    def __init__(
        self,
        self_attn: dict,
        cross_attn: dict,
        embed_dims: int = 256,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.attentions = nn.ModuleList([MODELS.build(self_attn), MODELS.build(cross_attn)])
        self.ffns = nn.ModuleList([FFN(embed_dims, feedforward_channels, ffn_drop=dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(embed_dims) for _ in range(3)])

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        grid: Tensor,
        shape: tuple[int, int],
        history: tuple[Tensor, Tensor] | None,
        features: Tensor,
        hits: CameraHits,
        levels: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Refine BEV queries ``(B, h * w, embed_dims)``; see :class:`BEVFormerEncoder`."""
        query = self.norms[0](self.attentions[0](query, query_pos, grid, shape, history))
        query = self.norms[1](self.attentions[1](query, features, hits, levels))
        return self.norms[2](self.ffns[0](query))


@MODELS.register_module()
class BEVFormerEncoder(nn.Module):
    """Layers that all look at the same history and through the same cameras.

    What doesn't change between layers (the grid, the projection into the cameras and the list of
    cells each one sees) is computed once per frame, and once per rig if the cameras stand still.

    Args:
        num_layers: Layers.
        layer: Config of one.
        pc_range: x, y, z minima, then maxima, in metres.
        num_points_in_pillar: Heights at which a cell is projected into the cameras.
    """

    def __init__(
        self, num_layers: int, layer: dict, pc_range: Sequence[float], num_points_in_pillar: int = 4
    ):
        super().__init__()
        self.layers = nn.ModuleList([MODELS.build(layer) for _ in range(num_layers)])
        self.pc_range = pc_range
        self.num_points_in_pillar = num_points_in_pillar
        self._hits = HitsCache()
        self._grids: dict = {}

    def grids(self, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Cell centres ``(h * w, 2)`` in [0, 1] and pillars ``(heights, h * w, 3)`` in metres."""
        key = (shape, device)
        if key not in self._grids:
            pillars = pillar_points(*shape, self.num_points_in_pillar, self.pc_range, device)
            self._grids = {key: (grid_points(*shape, device), pillars)}
        return self._grids[key]

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        shape: tuple[int, int],
        shift: Tensor,
        previous: Tensor | None,
        features: Tensor,
        levels: Sequence[tuple[int, int]],
        lidar2img: np.ndarray,
        image_size: tuple[int, int],
    ) -> Tensor:
        """BEV features ``(B, h * w, embed_dims)``.

        Args:
            query: ``(B, h * w, embed_dims)``.
            query_pos: As ``query``, or with a batch of 1.
            shape: h and w.
            shift: Ego motion ``(B, 2)`` in units of the BEV. Both BEVs are sampled at shifted
                points, as VAD's published weights expect.
            previous: The previous BEV, turned into the current heading; as ``query``.
            features: ``(B * cameras, n, embed_dims)``.
            levels: Height and width of each feature level.
            lidar2img: ``(B, cameras, 4, 4)``.
            image_size: Height and width of the images.
        """
        centers, pillars = self.grids(tuple(shape), query.device)
        grid = centers[None] + shift[:, None]
        hits = self._hits.get(pillars, lidar2img, image_size)
        history = None if previous is None else (previous, query)
        for layer in self.layers:
            query = layer(query, query_pos, grid, shape, history, features, hits, levels)
        return query
