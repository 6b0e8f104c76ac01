"""From the LiDAR frame to pixels, with what lies behind a camera cut off."""

import numpy as np
import torch

from ..structures import corners

#: Nothing nearer to a camera is drawn; metres.
NEAR = 0.2
#: Pairs of corners, as ``structures.corners`` counts them, that an edge joins.
EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)
#: The corners of the front face, all the way round.
FRONT = np.array([0, 1, 5, 4])


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """Corners (n, 8, 3) of VAD boxes (n, 9)."""
    return corners(torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float64))).numpy()


def to_camera(points: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """Points (..., 3) in metres as (u * depth, v * depth, depth), pixels and metres."""
    return points @ lidar2img[:3, :3].T + lidar2img[:3, 3]


def to_pixels(points: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of what :func:`to_camera` returns; depths must be above 0."""
    return points[..., :2] / points[..., 2:]


def clip_segments(segments: np.ndarray, near: float = NEAR) -> np.ndarray:
    """The parts of line segments that lie before the camera.

    Args:
        segments: (k, 2, 3) of :func:`to_camera`.
        near: Depth in metres from which on something is seen.

    Returns:
        (k', 2, 2) in pixels; segments wholly behind are gone.
    """
    depth = segments[..., 2]
    keep = (depth >= near).any(axis=1)
    segments, depth = segments[keep].copy(), depth[keep]
    step = segments[:, 1] - segments[:, 0]
    behind = depth < near
    cut = behind.any(axis=1)
    share = (near - depth[cut, 0]) / step[cut, 2]
    crossing = segments[cut, 0] + share[:, None] * step[cut]
    crossing[:, 2] = near
    segments[behind] = crossing
    return to_pixels(segments)


def clip_polygon(points: np.ndarray, near: float = NEAR) -> np.ndarray:
    """The part of a convex polygon that lies before the camera.

    Args:
        points: (k, 3) of :func:`to_camera`, all the way round.
        near: Depth in metres from which on something is seen.

    Returns:
        (k', 2) in pixels; (0, 2) if it is wholly behind.
    """
    kept = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        if start[2] >= near:
            kept.append(start)
        if (start[2] >= near) != (end[2] >= near):
            kept.append(start + (near - start[2]) / (end[2] - start[2]) * (end - start))
    return to_pixels(np.array(kept)) if kept else np.zeros((0, 2))


def visible(pixels: np.ndarray, width: int, height: int) -> bool:
    """Whether the rectangle round ``pixels`` (..., 2) meets an image of this size."""
    flat = pixels.reshape(-1, 2)
    if not len(flat):
        return False
    (left, top), (right, bottom) = flat.min(axis=0), flat.max(axis=0)
    return bool(right >= 0 and left < width and bottom >= 0 and top < height)
