"""VAD's perception: camera features to BEV, BEV to objects and map elements."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from .attention import DeformableAttention
from .bev_geometry import bev_shift, rotate_bev
from .decoder import Decoded
from .on_device import sent

#: Length of a CAN bus record (see the dataset).
CAN_BUS = 18


@MODELS.register_module()
class VADPerceptionTransformer(BaseModule):
    """BEV encoder, object decoder, map decoder and the signals they share.

    Args:
        encoder: Config of the BEV encoder.
        decoder: Config of the object decoder.
        map_decoder: Config of the map decoder.
        embed_dims: Width of features and queries.
        num_feature_levels: Rows of the level embedding; published weights have 4 whatever the neck.
        num_cams: Cameras.
        rotate_center: Pivot (x, y) in cells for turning the previous BEV; (100, 100) in all
            published weights, whatever the grid.
    """

    def __init__(
        self,
        encoder: dict,
        decoder: dict,
        map_decoder: dict,
        embed_dims: int = 256,
        num_feature_levels: int = 4,
        num_cams: int = 6,
        rotate_center: Sequence[int] = (100, 100),
    ):
        super().__init__()
        self.embed_dims = embed_dims
        self.rotate_center = tuple(rotate_center)
        self.level_embeds = nn.Parameter(torch.empty(num_feature_levels, embed_dims))
        self.cams_embeds = nn.Parameter(torch.empty(num_cams, embed_dims))
        self.encoder = MODELS.build(encoder)
        self.decoder = MODELS.build(decoder)
        self.map_decoder = MODELS.build(map_decoder)
        self.reference_points = nn.Linear(embed_dims, 3)
        self.map_reference_points = nn.Linear(embed_dims, 2)
        self.can_bus_mlp = nn.Sequential(
            nn.Linear(CAN_BUS, embed_dims // 2),
            nn.ReLU(inplace=True),
            nn.Linear(embed_dims // 2, embed_dims),
            nn.ReLU(inplace=True),
        )
        self.can_bus_mlp.add_module('norm', nn.LayerNorm(embed_dims))
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier for all matrices but deformable attention's, which starts in fixed directions."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()
        nn.init.normal_(self.level_embeds)
        nn.init.normal_(self.cams_embeds)
        for linear in (self.reference_points, self.map_reference_points, *self.can_bus_mlp):
            if isinstance(linear, nn.Linear):
                nn.init.zeros_(linear.bias)
        self._is_init = True

    def flatten(self, features: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Feature maps ``(B, cameras, C, h, w)`` as one ``(B * cameras, n, C)``, and their sizes.

        Each cell gets the embeddings of its camera and of its level.
        """
        flat = []
        for level, feature in enumerate(features):
            tokens = feature.flatten(3).transpose(2, 3)
            tokens = tokens + self.cams_embeds[:, None].to(tokens.dtype)
            flat.append(tokens + self.level_embeds[level].to(tokens.dtype))
        return torch.cat(flat, 2).flatten(0, 1), [tuple(f.shape[-2:]) for f in features]

    def encode(
        self,
        features: Sequence[Tensor],
        bev_queries: Tensor,
        bev_pos: Tensor,
        shape: tuple[int, int],
        frames: Sequence[dict[str, Any]],
        bev_size: tuple[float, float],
        previous: Tensor | None = None,
    ) -> Tensor:
        """BEV features ``(B, h * w, embed_dims)``.

        Args:
            features: Feature levels, ``(B, cameras, embed_dims, h, w)`` each.
            bev_queries: ``(h * w, embed_dims)``.
            bev_pos: ``(1, h * w, embed_dims)``.
            shape: h and w of the BEV.
            frames: One per sample: ``can_bus`` (with displacements), ``lidar2img``, ``img_shape``.
            bev_size: Extent of the BEV in x and y, in metres.
            previous: The previous frame's BEV features, in its heading. Not changed.
        """
        can_bus = np.stack([frame['can_bus'] for frame in frames])
        if previous is not None:
            previous = rotate_bev(previous, can_bus[:, -1], shape, self.rotate_center)
        shift = sent(bev_shift(can_bus, bev_size), bev_queries)
        query = bev_queries[None] + self.can_bus_mlp(sent(can_bus, bev_queries))[:, None]
        flat, levels = self.flatten(features)
        lidar2img = np.stack([np.asarray(frame['lidar2img']) for frame in frames])
        size = tuple(frames[0]['img_shape'][:2])
        return self.encoder(query, bev_pos, shape, shift, previous, flat, levels, lidar2img, size)

    def decode(
        self,
        bev: Tensor,
        object_embed: Tensor,
        map_embed: Tensor,
        shape: tuple[int, int],
        reg_branches: nn.ModuleList,
        map_reg_branches: nn.ModuleList,
        hidden: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Decoded, Decoded]:
        """Objects and map points out of the BEV.

        Args:
            bev: ``(B, h * w, embed_dims)``.
            object_embed: ``(Q, 2 * embed_dims)``: positions, then contents.
            map_embed: As ``object_embed``, for map points.
            shape: h and w.
            reg_branches: Regression branches of the object decoder's layers.
            map_reg_branches: Those of the map decoder's.
            hidden: Object queries and map points that the others must not see, ``(1, n)`` each.
        """
        found = []
        for embed, points, decoder, branches, unseen in (
            (object_embed, self.reference_points, self.decoder, reg_branches, hidden[0]),
            (map_embed, self.map_reference_points, self.map_decoder, map_reg_branches, hidden[1]),
        ):
            pos, query = (
                x.expand(len(bev), -1, -1) for x in embed[None].split(self.embed_dims, dim=-1)
            )
            with torch.autocast(bev.device.type, enabled=False):
                start = points(pos).sigmoid()
            found.append(decoder(query, pos, bev, start, shape, branches, unseen))
        return found[0], found[1]
