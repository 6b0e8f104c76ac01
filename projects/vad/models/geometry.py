"""How the head writes boxes and points, and how to get from there to metres and back.

Map points and map boxes are fractions of the perception range; agents' boxes are a code of ten
numbers, ``cx, cy, log w, log l, cz, log h, sin yaw, cos yaw, vx, vy``, in metres with the centre at
half height.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .on_device import constant


def _corner_and_size(like: Tensor, pc_range: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Lower x, y corner and the extent of ``x0, y0, z0, x1, y1, z1``, two numbers each."""
    lower, upper = constant(tuple(pc_range[:2]), like), constant(tuple(pc_range[3:5]), like)
    return lower, upper - lower


def normalize_points(points: Tensor, pc_range: Sequence[float]) -> Tensor:
    """Fractions of the range, 0 at its lower corner, of points ``(..., 2)`` in metres."""
    corner, size = _corner_and_size(points, pc_range)
    return (points - corner) / size


def denormalize_points(points: Tensor, pc_range: Sequence[float]) -> Tensor:
    """Metres of points ``(..., 2)`` written as fractions of the range."""
    corner, size = _corner_and_size(points, pc_range)
    return points * size + corner


def normalize_map_boxes(boxes: Tensor, pc_range: Sequence[float]) -> Tensor:
    """``cx, cy, w, h`` as fractions of the range, of boxes ``x0, y0, x1, y1`` in metres."""
    corner, size = _corner_and_size(boxes, pc_range)
    lower, upper = boxes[..., :2], boxes[..., 2:]
    return torch.cat([((lower + upper) / 2 - corner) / size, (upper - lower) / size], dim=-1)


def denormalize_map_boxes(boxes: Tensor, pc_range: Sequence[float]) -> Tensor:
    """Boxes ``x0, y0, x1, y1`` in metres, of ``cx, cy, w, h`` as fractions of the range."""
    center, half = boxes[..., :2], boxes[..., 2:] * 0.5
    lower = denormalize_points(center - half, pc_range)
    upper = denormalize_points(center + half, pc_range)
    return torch.cat([lower, upper], dim=-1)


def encode_boxes(boxes: Tensor) -> Tensor:
    """Codes ``(..., 10)`` of VAD boxes ``(..., 9)`` whose z is at half height.

    A size that isn't positive gives a code that isn't finite.
    """
    center, size, yaw, velocity = boxes.split([3, 3, 1, 2], dim=-1)
    width, length, height = size.log().split(1, dim=-1)
    parts = [
        center[..., :2],
        width,
        length,
        center[..., 2:],
        height,
        yaw.sin(),
        yaw.cos(),
        velocity,
    ]
    return torch.cat(parts, dim=-1)


def decode_boxes(codes: Tensor) -> Tensor:
    """VAD boxes ``(..., 9)``, z at half height, of codes ``(..., 10)``."""
    xy, footprint, z, height, sine, cosine, velocity = codes.split([2, 2, 1, 1, 1, 1, 2], dim=-1)
    parts = [xy, z, footprint.exp(), height.exp(), torch.atan2(sine, cosine), velocity]
    return torch.cat(parts, dim=-1)
