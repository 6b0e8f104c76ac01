"""One frame of VAD without objects, lists and loops over samples, so that it can be traced."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.attention.deformable import cells
from ..models.attention.sampling import deformable_sampling
from ..models.dummy import ring_of_cameras
from ..models.transformer import CAN_BUS
from .geometry import projected, shift_of, turned

#: What of the head's answer is put out, and whether the last decoder layer's alone.
OUTPUTS = {
    'all_cls_scores': 'class_logits',
    'all_bbox_preds': 'box_codes',
    'all_traj_preds': 'trajectories',
    'all_traj_cls_scores': 'trajectory_logits',
    'map_all_cls_scores': 'map_class_logits',
    'map_all_pts_preds': 'map_points',
}


class FrameGraph(nn.Module):
    """A dense or slim VAD in test mode, one frame at a time.

    What changes from frame to frame is an input: the cameras' projections, the CAN bus, the BEV of the
    frame before and whether there is one. Every BEV cell looks into every camera, and what a camera
    doesn't see counts nothing: a list of those that see it would be of another length for every rig.

    Args:
        model: A :class:`projects.vad.models.VAD` in evaluation mode; it is copied.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = deepcopy(model).eval()
        self.head = self.model.pts_bbox_head
        for layer in self.head.transformer.encoder.layers:
            layer.attentions[0] = SwitchedTemporal(layer.attentions[0])
            layer.attentions[1] = EveryCamera(layer.attentions[1])
        self.cameras, *self.image_size = model.input_shape

    def forward(
        self,
        images: Tensor,
        lidar2img: Tensor,
        can_bus: Tensor,
        previous_bev: Tensor,
        has_previous: Tensor,
        ego_history: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What is seen and planned.

        Args:
            images: ``(1, cameras, 3, H, W)``, normalised as the model's data preprocessor does.
            lidar2img: ``(1, cameras, 4, 4)`` from the LiDAR's metres to pixels of these images.
            can_bus: ``(1, 18)`` as the data set has it; numbers 0 and 1 are the displacement since the
                frame before in metres, the last one is the change of heading in degrees; 0 in a first
                frame.
            previous_bev: The ``bev`` that the frame before has given, ``(1, h * w, embed_dims)``.
            has_previous: ``(1,)``, 1 if there was one, else 0.
            ego_history: The ego's last two offsets, ``(1, 2, 2)`` in metres; for models with an
                ``ego_his_encoder`` alone.

        Returns:
            ``class_logits (1, Q, classes)``, ``box_codes (1, Q, 10)`` (metres, sizes as logarithms),
            ``trajectories (1, Q, modes, steps * 2)`` offsets per step, ``trajectory_logits (1, Q, modes)``,
            ``map_class_logits (1, V, classes)``, ``map_points (1, V, points, 2)`` in [0, 1] of the range,
            ``ego_trajectories (1, commands, steps, 2)`` offsets per step, ``bev`` for the next frame.
        """
        bev = self.encode(images, lidar2img, can_bus, previous_bev, has_previous)
        outs = self.head(bev, ego_history)
        found = {name: outs[key][-1] for key, name in OUTPUTS.items()}
        return {**found, 'ego_trajectories': outs['ego_fut_preds'], 'bev': bev}

    def encode(
        self,
        images: Tensor,
        lidar2img: Tensor,
        can_bus: Tensor,
        previous: Tensor,
        has_previous: Tensor,
    ) -> Tensor:
        """The BEV."""
        head, transformer = self.head, self.head.transformer
        encoder, shape = transformer.encoder, head.shape
        levels = self.model.img_neck(self.model.img_backbone(images.flatten(0, 1)))
        flat, sizes = transformer.flatten([level[None] for level in levels])
        queries = head.bev_embedding.weight
        positions = (
            head.positional_encoding(queries.new_zeros(1, *shape)).flatten(2).transpose(1, 2)
        )
        query = queries[None] + transformer.can_bus_mlp(can_bus)[:, None]
        centers, pillars = encoder.grids(tuple(shape), queries.device)
        grid = centers[None] + shift_of(can_bus, head.extent)[:, None]
        before = turned(previous, can_bus[:, -1], shape, transformer.rotate_center)
        history = (before, query, has_previous[:, None, None])
        hits = projected(pillars, lidar2img, tuple(self.image_size))
        for layer in encoder.layers:
            query = layer(query, positions, grid, shape, history, flat, hits, sizes)
        return query

    def dummy_inputs(self, batch_size: int = 1) -> dict[str, Tensor]:
        """See :meth:`export_example`."""
        return self.export_example(0)

    def export_example(self, seed: int) -> dict[str, Tensor]:
        """Arguments of a frame: random images of a rig that is another for every seed; odd seeds have a
        frame before."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        height, width = self.image_size
        rig = ring_of_cameras(self.cameras, height, width)
        turn = np.eye(4)
        angle = 0.3 * seed
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn[:3, 3] = [0.2 * seed, 0.1, -0.3]
        can_bus = 0.3 * draw(1, CAN_BUS)
        can_bus[:, -1] = 3.0 * seed  # degrees
        h, w = self.head.shape
        history = {} if self.head.ego_his_encoder is None else dict(ego_history=draw(1, 2, 2))
        return dict(
            images=draw(1, self.cameras, 3, height, width),
            lidar2img=torch.from_numpy(rig @ turn).float()[None],
            can_bus=can_bus,
            previous_bev=draw(1, h * w, self.head.bev_embedding.weight.shape[1]),
            has_previous=torch.tensor([float(seed % 2)]),
            **history,
        )


class SwitchedTemporal(nn.Module):
    """Temporal self-attention whose previous BEV is there or not, as a number says.

    Args:
        attention: A ``TemporalSelfAttention``.
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, query_pos: Tensor, grid: Tensor, shape: Any, history: Any):
        """See ``TemporalSelfAttention``; ``history`` has a third entry, 1 or 0."""
        previous, current, there = history
        chosen = (torch.where(there > 0.5, value, query) for value in (previous, current))
        return self.attention(query, query_pos, grid, shape, tuple(chosen))


class EveryCamera(nn.Module):
    """Spatial cross-attention of every cell to every camera; what isn't seen counts nothing.

    Args:
        attention: A ``SpatialCrossAttention``.
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.output_proj, self.inner = attention.output_proj, attention.deformable_attention

    def forward(self, query: Tensor, value: Tensor, hits: tuple[Tensor, Tensor], shapes: Any):
        """See ``SpatialCrossAttention``; ``hits`` are places and what is seen, see :func:`projected`."""
        places, seen = hits
        inner = self.inner
        offsets, weights = (x.squeeze(2) for x in inner.offsets_and_weights(query[0]))
        offsets = offsets / cells(shapes, query)[:, None]
        offsets = offsets.unflatten(-2, (-1, places.shape[2]))
        locations = (places[:, :, None, None, None] + offsets[None]).flatten(-3, -2)
        weights = weights[None].expand(len(places), *weights.shape)
        found = deformable_sampling(inner.heads_of(value), shapes, locations, weights)
        counted = (found * seen[..., None]).sum(0) / seen.sum(0).clamp(min=1)[:, None]
        return self.output_proj(counted)[None] + query
