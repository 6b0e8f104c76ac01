"""The BEV grid, the cameras that see its cells, and how the ego moved over it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from projects.prune_plugin.common.precision import without_tf32

from .attention.sampling import Rows
from .on_device import constant, sent

#: A point less than this far in front of a camera counts as behind it, in metres.
NEAR = 1e-5


@dataclass
class CameraHits:
    """Which camera sees which BEV cell, as a list of R pairs in the order of the cameras.

    Attributes:
        query: ``(R,)`` index of the cell in the flattened ``(B, h * w)``.
        points: ``(R, heights, 2)`` where the heights of the cell's pillar are in the image, x and y
            in [0, 1] if inside.
        rows: The pairs' cameras, counted through ``B * cameras``.
        cameras: ``(B, h * w)`` number of cameras that see a cell, at least 1.
    """

    query: Tensor
    points: Tensor
    rows: Rows
    cameras: Tensor


def grid_points(height: int, width: int, device: torch.device) -> Tensor:
    """Centres ``(h * w, 2)`` of the cells, x and y in [0, 1], row by row."""
    y = torch.linspace(0.5, height - 0.5, height, device=device) / height
    x = torch.linspace(0.5, width - 0.5, width, device=device) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)


def pillar_points(
    height: int, width: int, num: int, pc_range: Sequence[float], device: torch.device
) -> Tensor:
    """``num`` points per cell ``(num, h * w, 3)`` over the range's height, in metres."""
    depth = pc_range[5] - pc_range[2]
    z = torch.linspace(0.5, depth - 0.5, num, device=device) / depth
    flat = grid_points(height, width, device)
    points = torch.cat(
        [flat.expand(num, -1, -1), z[:, None, None].expand(-1, len(flat), 1)], dim=-1
    )
    low = constant(tuple(pc_range[:3]), points)
    size = constant(tuple(pc_range[3 + i] - pc_range[i] for i in range(3)), points)
    return points * size + low


@without_tf32()
def project(
    points: Tensor, lidar2img: Tensor, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Project pillars into cameras, in full precision also under autocast.

    Args:
        points: ``(heights, cells, 3)`` in metres.
        lidar2img: ``(B, cameras, 4, 4)``.
        image_size: Height and width in pixels of the (padded) images.

    Returns:
        ``(B, cameras, cells, heights, 2)`` x and y in units of the image, and whether each lies in
        the image and in front of the camera, ``(B, cameras, cells, heights)``.
    """
    points = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    heights, num = points.shape[:2]
    batch, cameras = lidar2img.shape[:2]
    matrices = lidar2img[:, :, None, None].expand(batch, cameras, heights, num, 4, 4)
    columns = points[None, None, ..., None].expand(batch, cameras, heights, num, 4, 1)
    with torch.autocast(points.device.type, enabled=False):
        projected = torch.matmul(matrices, columns).squeeze(-1).transpose(2, 3)
    depth = projected[..., 2:3]
    places = projected[..., :2] / depth.clamp(min=NEAR)
    places = places / constant((image_size[1], image_size[0]), places)
    inside = ((places > 0) & (places < 1)).all(-1) & (depth[..., 0] > NEAR)
    return places, inside


def camera_hits(places: Tensor, inside: Tensor) -> CameraHits:
    """The pairs of cells and cameras out of :func:`project`'s answer (two syncs on GPUs)."""
    batch, cameras, num = inside.shape[:3]
    seen = inside.any(-1)
    owner, cell = seen.flatten(0, 1).nonzero(as_tuple=True)
    counts = seen.sum(-1).flatten()
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(owner), device=owner.device) - first[owner]
    query = owner.div(cameras, rounding_mode='floor') * num + cell
    points = places.flatten(0, 1)[owner, cell]
    rows = Rows(owner, slot, int(counts.max()))
    return CameraHits(query, points, rows, seen.sum(1).clamp(min=1).to(places.dtype))


class HitsCache:
    """Remembers the last answer for cameras that don't move relative to the vehicle."""

    def __init__(self):
        self.key: tuple | None = None
        self.hits: CameraHits | None = None

    def __deepcopy__(self, memo: dict) -> 'HitsCache':
        return HitsCache()

    def get(self, points: Tensor, lidar2img: np.ndarray, image_size: tuple[int, int]) -> CameraHits:
        """:func:`camera_hits` of ``points``, computed only if an argument has changed.

        Args:
            points: ``(heights, cells, 3)`` in metres.
            lidar2img: ``(B, cameras, 4, 4)``.
            image_size: Height and width of the images.
        """
        shapes = tuple(points.shape), lidar2img.shape, tuple(image_size)
        key = (points.device, *shapes, lidar2img.tobytes())
        if key != self.key:
            # What inference mode makes could not be used in training afterwards.
            with torch.inference_mode(False), torch.no_grad():
                matrices = torch.as_tensor(lidar2img, dtype=points.dtype, device=points.device)
                self.hits = camera_hits(*project(points, matrices, image_size))
            self.key = key
        return self.hits


def bev_shift(can_bus: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """How far the ego moved, in units of the BEV's extent.

    Args:
        can_bus: ``(B, 18)``; the first two entries are the global displacement in metres, the last
            but one is the absolute yaw in radians.
        size: Extent of the BEV in x and y, in metres.

    Returns:
        ``(B, 2)``: shift in x and y.
    """
    dx, dy, yaw = can_bus[:, 0], can_bus[:, 1], np.degrees(can_bus[:, -2])
    length = np.sqrt(dx**2 + dy**2)
    angle = np.radians(yaw - np.degrees(np.arctan2(dy, dx)))
    return np.stack([length * np.sin(angle) / size[0], length * np.cos(angle) / size[1]], -1)


def rotate_bev(
    bev: Tensor, degrees: Sequence[float], shape: tuple[int, int], center: Sequence[int]
) -> Tensor:
    """Turn BEV features ``(B, h * w, C)`` by an angle per sample; nearest cell, zero outside.

    ``center`` is (x, y) in cells. VAD keeps (100, 100), the centre of the base model's grid, for
    every size; published weights are made for it.
    """
    turned = []
    for features, angle in zip(bev, degrees, strict=True):
        image = features.unflatten(0, shape).permute(2, 0, 1)
        turned.append(rotated(image, float(angle), center).permute(1, 2, 0).flatten(0, 1))
    return torch.stack(turned)


@without_tf32()
def rotated(image: Tensor, degrees: float, center: Sequence[int]) -> Tensor:
    """``(C, h, w)`` turned anticlockwise about a point (x, y) in cells; nearest cell, zero outside.

    torchvision's ``rotate`` to the bit, without the copies of lists that a GPU would be waited for.
    """
    height, width = image.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = center[0] - 0.5 * width, center[1] - 0.5 * height  # from the middle of the image
    # Where a cell's content comes from; what cells are counted in becomes [-1, 1].
    matrix = np.array([[cos, sin], [-sin, cos], [x - cos * x + sin * y, y - sin * x - cos * y]])
    exact = image.float()  # half floats would miss one cell in five
    with torch.autocast(image.device.type, enabled=False):
        columns = torch.arange(width, device=image.device) - (0.5 * width - 0.5)
        rows = torch.arange(height, device=image.device) - (0.5 * height - 0.5)
        x, y = columns.repeat(height), rows.repeat_interleave(width)
        scaled = sent(matrix, exact) / constant((0.5 * width, 0.5 * height), exact)
        places = (torch.stack([x, y, torch.ones_like(x)], -1) @ scaled).view(1, height, width, 2)
        turned = F.grid_sample(exact[None], places, 'nearest', 'zeros', align_corners=False)[0]
    return turned.to(image.dtype)
