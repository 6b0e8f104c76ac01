"""Cameras and the ego's motion as tensors: what ``bev_geometry.py`` computes from numbers of the moment."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.bev_geometry import NEAR


def shift_of(can_bus: Tensor, size: tuple[float, float]) -> Tensor:
    """:func:`.bev_geometry.bev_shift` of ``(B, 18)``: ``(B, 2)`` in units of the BEV."""
    dx, dy, yaw = can_bus[:, 0], can_bus[:, 1], can_bus[:, -2]
    length = torch.sqrt(dx * dx + dy * dy)
    angle = yaw - torch.atan2(dy, dx)
    return torch.stack([length * angle.sin() / size[0], length * angle.cos() / size[1]], -1)


def turned(bev: Tensor, degrees: Tensor, shape: tuple[int, int], center: Sequence[float]) -> Tensor:
    """:func:`.bev_geometry.rotate_bev` of ``(1, h * w, C)`` by an angle ``(1,)``."""
    height, width = shape
    angle = torch.deg2rad(degrees[0])
    cos, sin = angle.cos(), angle.sin()
    x, y = center[0] - 0.5 * width, center[1] - 0.5 * height
    columns = torch.arange(width, device=bev.device, dtype=bev.dtype) - (0.5 * width - 0.5)
    rows = torch.arange(height, device=bev.device, dtype=bev.dtype) - (0.5 * height - 0.5)
    u, v = columns.repeat(height), rows.repeat_interleave(width)
    from_x = cos * u - sin * v + (x - cos * x + sin * y)
    from_y = sin * u + cos * v + (y - sin * x - cos * y)
    places = torch.stack([from_x / (0.5 * width), from_y / (0.5 * height)], -1)
    image = bev.transpose(1, 2).unflatten(2, shape)
    places = places.view(1, height, width, 2)
    found = F.grid_sample(image, places, 'nearest', 'zeros', align_corners=False)
    return found.flatten(2).transpose(1, 2)


def projected(
    pillars: Tensor, lidar2img: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """:func:`.bev_geometry.project` of every cell into every camera.

    Args:
        pillars: ``(heights, cells, 3)`` in metres.
        lidar2img: ``(1, cameras, 4, 4)``.
        image_size: Height and width in pixels.

    Returns:
        Places ``(cameras, cells, heights, 2)`` in units of the image, and which cells a camera sees,
        ``(cameras, cells)``, 1 or 0.
    """
    points = torch.cat([pillars, torch.ones_like(pillars[..., :1])], -1)
    heights, cells = points.shape[:2]
    flat = points.transpose(0, 1).flatten(0, 1)  # (cells * heights, 4)
    found = flat @ lidar2img[0].transpose(1, 2)  # (cameras, cells * heights, 4)
    depth = found[..., 2:3]
    places = found[..., :2] / depth.clamp(min=NEAR)
    places = places / places.new_tensor([image_size[1], image_size[0]])
    inside = ((places > 0) & (places < 1)).all(-1) & (depth[..., 0] > NEAR)
    seen = inside.unflatten(1, (cells, heights)).any(-1)
    return places.unflatten(1, (cells, heights)), seen.to(pillars.dtype)
