"""From metres to pixels, and cutting off what lies behind a camera."""

import numpy as np

#: Depth in metres in front of which nothing is drawn.
NEAR = 0.3


def to_camera(points: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """Points ``(..., 3)`` in metres as ``(u * depth, v * depth, depth)``, linear in the points."""
    return points @ lidar2img[:3, :3].T + lidar2img[:3, 3]


def to_pixels(cut: np.ndarray) -> np.ndarray:
    """Pixels ``(..., 2)`` of what :func:`to_camera` returned; depths must be positive."""
    return cut[..., :2] / cut[..., 2:3]


def clip_segment(a: np.ndarray, b: np.ndarray, near: float = NEAR) -> np.ndarray | None:
    """The part ``(2, 3)`` of a segment in camera form that is at least ``near`` away, or None."""
    if a[2] < near and b[2] < near:
        return None
    return np.stack([_advance(a, b, near), _advance(b, a, near)])


def _advance(a: np.ndarray, b: np.ndarray, near: float) -> np.ndarray:
    """``a``, or the point on the way from it to ``b`` where the depth becomes ``near``."""
    return a if a[2] >= near else a + (near - a[2]) / (b[2] - a[2]) * (b - a)


def clip_polygon(corners: np.ndarray, near: float = NEAR) -> np.ndarray:
    """The part ``(k, 3)`` of a polygon ``(n, 3)`` in camera form that is at least ``near`` away.

    ``k`` is 0 if nothing is left of it.
    """
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if a[2] >= near:
            kept.append(a)
        if (a[2] >= near) != (b[2] >= near):
            kept.append(_advance(a, b, near) if a[2] < near else _advance(b, a, near))
    return np.array(kept).reshape(-1, 3)


def on_road(points: np.ndarray, lidar2ego: np.ndarray) -> np.ndarray:
    """Points ``(n, 2)`` of the LiDAR frame with the height ``(n, 3)`` of the ego frame's ground."""
    row = lidar2ego[2]
    height = -(points @ row[:2] + row[3]) / row[2]
    return np.concatenate([points, height[:, None]], axis=1)


def densify(points: np.ndarray, step: float = 0.5) -> np.ndarray:
    """A line ``(n, 2)`` with points at most ``step`` metres apart, its own ones included."""
    pieces = [points[:1]]
    for a, b in zip(points[:-1], points[1:], strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(b - a) / step)))
        pieces.append(a + (b - a) * np.arange(1, count + 1)[:, None] / count)
    return np.concatenate(pieces)


def ribbon(path: np.ndarray, width: float) -> np.ndarray:
    """The outline ``(2 n, 2)`` of a band of some width along a path ``(n, 2)``."""
    along = np.gradient(path, axis=0)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = np.where(length > 1e-6, along / np.maximum(length, 1e-6), [0.0, 1.0])
    left = np.stack([-along[:, 1], along[:, 0]], axis=1) * width / 2
    return np.concatenate([path + left, (path - left)[::-1]])
