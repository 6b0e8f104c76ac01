"""Points along lines at equal distances."""

import numpy as np


def resample(vertices: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Points of a line at distances from its start, in metres along it.

    Args:
        vertices: ``(k, 2)``, at least one.
        distances: ``(n,)``; beyond the end they give the end.

    Returns:
        ``(n, 2)`` float64.
    """
    along = arc_lengths(vertices)
    return np.stack([np.interp(distances, along, vertices[:, axis]) for axis in (0, 1)], axis=-1)


def arc_lengths(vertices: np.ndarray) -> np.ndarray:
    """Distance ``(k,)`` of each vertex ``(k, 2)`` from the first, along the line."""
    steps = np.linalg.norm(np.diff(vertices, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def even_distances(vertices: np.ndarray, num: int) -> np.ndarray:
    """``num`` distances from the start of a line to its end."""
    return np.linspace(0, arc_lengths(vertices)[-1], num)


def clamp(points: np.ndarray, patch: tuple[float, float]) -> np.ndarray:
    """Points ``(..., 2)`` moved into a patch of ``(y, x)`` metres round the origin, as float32."""
    limit = np.array([patch[1], patch[0]], dtype=np.float32) / 2
    return np.clip(points.astype(np.float32), -limit, limit)


def fixed_points(
    vertices: np.ndarray, num: int = 20, patch: tuple[float, float] = (60.0, 30.0)
) -> np.ndarray:
    """``num`` points at equal distances along a line, both ends among them.

    Args:
        vertices: ``(k, 2)`` metres in the LiDAR frame.
        num: How many.
        patch: Extent in y and x, metres; points outside are moved to its border.

    Returns:
        ``(num, 2)`` float32.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    return clamp(resample(vertices, even_distances(vertices, num)), patch)


def bounds(vertices: np.ndarray, patch: tuple[float, float] = (60.0, 30.0)) -> np.ndarray:
    """The rectangle round a line: ``(4,)`` float32 x and y min, x and y max, within the patch."""
    vertices = np.asarray(vertices, dtype=np.float64)
    corners = np.stack([vertices.min(axis=0), vertices.max(axis=0)])
    return clamp(corners, patch).reshape(4)
