"""Plane geometry of the toy world: polylines, smooth paths and oriented boxes (metres, radians)."""

import numpy as np


def resample(xy: np.ndarray, step: float) -> np.ndarray:
    """A polyline (n, 2) with vertices about ``step`` metres apart; both ends are kept."""
    s = arc_length(xy)
    at = np.linspace(0, s[-1], max(int(np.ceil(s[-1] / step)), 1) + 1)
    return np.stack([np.interp(at, s, xy[:, 0]), np.interp(at, s, xy[:, 1])], 1)


def arc_length(xy: np.ndarray) -> np.ndarray:
    """Distance along a polyline at each of its vertices, from 0."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])


def tangents(xy: np.ndarray) -> np.ndarray:
    """Unit tangents (n, 2) of a polyline."""
    d = np.gradient(xy, axis=0)
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def offset(xy: np.ndarray, distance: float | np.ndarray) -> np.ndarray:
    """The polyline moved ``distance`` to its left (negative: right); one value or one per vertex."""
    t = tangents(xy)
    return xy + np.stack([-t[:, 1], t[:, 0]], 1) * np.reshape(distance, (-1, 1))


def bend(heading: float, straight: float, curvature: float, angle: float, length: float):
    """A polyline from the origin: straight, an arc of ``angle`` radians, straight; 1 m steps."""
    s = np.arange(0.0, length + 1e-6, 1.0)
    arc = angle / max(abs(curvature), 1e-9)
    yaw = heading + curvature * np.clip(s - straight, 0, arc)
    mid = (yaw[1:] + yaw[:-1]) / 2
    steps = np.stack([np.cos(mid), np.sin(mid)], 1)
    return np.concatenate([[[0.0, 0.0]], np.cumsum(steps, 0)])


def joint(p: np.ndarray, p_dir: np.ndarray, q: np.ndarray, q_dir: np.ndarray) -> np.ndarray:
    """A smooth curve (n, 2) from ``p`` to ``q`` with the given unit tangents."""
    t = np.linspace(0, 1, 41)[:, None]
    det = p_dir[0] * q_dir[1] - p_dir[1] * q_dir[0]
    if abs(det) < 0.2:
        handle = np.linalg.norm(q - p) * 0.34
        a, b, ends = p + handle * p_dir, q - handle * q_dir, (p, q)
    else:  # about a quarter circle round the corner where the tangents meet
        d = q - p
        corner = p + p_dir * (d[0] * q_dir[1] - d[1] * q_dir[0]) / det
        reach = max(min(np.linalg.norm(corner - p), np.linalg.norm(q - corner)), 0.1)
        ends = corner - reach * p_dir, corner + reach * q_dir
        a, b = ends[0] + 0.5523 * reach * p_dir, ends[1] - 0.5523 * reach * q_dir
    s, e = ends
    curve = (1 - t) ** 3 * s + 3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 * e
    keep = [x for x, y in ((p, s), (q, e)) if np.linalg.norm(x - y) > 0.05]
    first = [p[None]] if len(keep) and keep[0] is p else []
    last = [q[None]] if len(keep) and keep[-1] is q else []
    return np.concatenate([*first, curve, *last])


def rectangle(centre, yaw: float, length: float, width: float) -> np.ndarray:
    """Corners (4, 2) of an oriented rectangle, counter-clockwise from the rear right."""
    c, s = np.cos(yaw), np.sin(yaw)
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    return unit * [length, width] @ np.array([[c, s], [-s, c]]) + np.asarray(centre)[:2]


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two oriented rectangles (4, 2) overlap (separating axes)."""
    for corners in (a, b):
        for edge in (corners[1] - corners[0], corners[3] - corners[0]):
            pa, pb = a @ edge, b @ edge
            if pa.max() <= pb.min() or pb.max() <= pa.min():
                return False
    return True


class Path:
    """A smooth way through the world, parametrised by the distance ``s`` along it.

    Args:
        xy: Polyline (n, 2); it is resampled and slightly smoothed, so that the yaw is continuous.
    """

    step = 0.5

    def __init__(self, xy: np.ndarray):
        xy = resample(np.asarray(xy, float), self.step)
        if len(xy) > 16:
            kernel = np.hanning(9)[1:-1]
            kernel /= kernel.sum()
            pad = len(kernel) // 2
            before = xy[0] + (xy[0] - xy[1]) * np.arange(pad, 0, -1)[:, None]
            after = xy[-1] + (xy[-1] - xy[-2]) * np.arange(1, pad + 1)[:, None]
            long = np.concatenate([before, xy, after])
            xy = np.stack([np.convolve(long[:, i], kernel, 'valid') for i in (0, 1)], 1)
        self.xy = xy
        self.s = arc_length(xy)
        t = tangents(xy)
        self.yaw = np.unwrap(np.arctan2(t[:, 1], t[:, 0]))
        self.curvature = np.gradient(self.yaw, self.s)

    @property
    def length(self) -> float:
        """Metres from end to end."""
        return float(self.s[-1])

    def at(self, s):
        """x, y, yaw at the distance(s) ``s``; beyond the ends the path goes on straight."""
        beyond = np.asarray(s) - np.clip(s, 0, self.length)
        yaw = np.interp(s, self.s, self.yaw)
        x = np.interp(s, self.s, self.xy[:, 0]) + beyond * np.cos(yaw)
        y = np.interp(s, self.s, self.xy[:, 1]) + beyond * np.sin(yaw)
        return x, y, yaw

    def project(self, points: np.ndarray, low=0.0, high=np.inf, stride=1):
        """Distance along the path and (signed, left positive) beside it of points (n, 2).

        Only the stretch from ``low`` to ``high`` counts, and of it each ``stride``-th vertex.
        """
        i, j = np.searchsorted(self.s, [low, high])
        part = slice(i, j + 1, stride)
        xy, s, yaw = self.xy[part], self.s[part], self.yaw[part]
        if not len(xy):
            xy, s, yaw = self.xy[-1:], self.s[-1:], self.yaw[-1:]
        delta = points[:, None] - xy[None]
        near = np.argmin((delta**2).sum(-1), 1)
        d = delta[np.arange(len(points)), near]
        c, sn = np.cos(yaw[near]), np.sin(yaw[near])
        return s[near] + d[:, 0] * c + d[:, 1] * sn, d[:, 1] * c - d[:, 0] * sn


def shifted(xy: np.ndarray, start: float, length: float, distance: float) -> np.ndarray:
    """The polyline with a smooth lane change: ``distance`` to the left from ``start`` on."""
    xy = resample(xy, 0.5)
    u = np.clip((arc_length(xy) - start) / length, 0, 1)
    return offset(xy, distance * u**3 * (10 - 15 * u + 6 * u**2))
