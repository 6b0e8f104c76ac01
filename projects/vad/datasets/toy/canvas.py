"""A picture under construction: colours, inverse depth and owners, filled polygon by polygon."""

import math

import cv2
import numpy as np

from .rig import Camera

NEAR = 0.25  # metres before the camera


def clip_near(points: np.ndarray, near: float) -> np.ndarray:
    """The part of a polygon (n, 3), in camera axes, that lies beyond ``near``."""
    depths = points[:, 2].tolist()
    if min(depths) > near:
        return points
    inside = [d > near for d in depths]
    out = []
    for i in range(len(points)):
        p, q = points[i - 1], points[i]
        if inside[i - 1] != inside[i]:
            out.append(p + (q - p) * (near - p[2]) / (q[2] - p[2]))
        if inside[i]:
            out.append(q)
    return np.array(out).reshape(-1, 3)


class Canvas:
    """The picture of one camera.

    Args:
        camera: Its intrinsic and size are used; points come in camera axes.

    Attributes:
        image: (h, w, 3) uint8 BGR.
        inverse: (h, w) float32, 1 / depth of what was drawn; 0 for ground and sky.
        owner: (h, w) int16, number of the agent seen, -1 for none.
    """

    def __init__(self, camera: Camera):
        w, h = camera.size
        k = camera.intrinsic
        self.size, self.focal, self.centre = (w, h), k[[0, 1], [0, 1]], k[:2, 2]
        self.across = ((np.arange(w) - k[0, 2]) / k[0, 0]).astype(np.float32)
        self.down = ((np.arange(h) - k[1, 2]) / k[1, 1]).astype(np.float32)
        self.image = np.zeros((h, w, 3), np.uint8)
        self.inverse = np.zeros((h, w), np.float32)
        self.owner = np.full((h, w), -1, np.int16)
        self._mask, self._own = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)

    def start(self) -> None:
        """Clears depth and owners."""
        self.inverse[:] = 0
        self.owner[:] = -1

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (n, 2) of points (n, 3) before the camera."""
        return points[:, :2] / points[:, 2:] * self.focal + self.centre

    def _region(self, uv: np.ndarray):
        """Rows and columns that a polygon of pixels may touch; None when it's outside."""
        across, down = uv.T.tolist()
        x0, y0 = max(math.floor(min(across)), 0), max(math.floor(min(down)), 0)
        x1 = min(math.ceil(max(across)) + 1, self.size[0])
        y1 = min(math.ceil(max(down)) + 1, self.size[1])
        return None if x0 >= x1 or y0 >= y1 else (slice(y0, y1), slice(x0, x1))

    def flat(self, points: np.ndarray, colour) -> None:
        """Paints a polygon of the ground, smoothly, over what is there."""
        points = clip_near(points, 1.0)
        if len(points) < 3:
            return
        uv = self.project(points)
        if self._region(uv) is None:
            return
        fixed = np.round(np.clip(uv, -1e5, 1e5) * 16).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, 4)

    def shade(self, points: np.ndarray, factor: float) -> None:
        """Darkens a convex polygon of the ground."""
        points = clip_near(points, 1.0)
        if len(points) < 3:
            return
        uv = self.project(points)
        region = self._region(uv)
        if region is None:
            return
        mask = self._fill(uv, region)
        part = self.image[region]
        np.copyto(part, (part * factor).astype(np.uint8), where=mask[..., None])

    def _fill(self, uv: np.ndarray, region) -> np.ndarray:
        mask = self._mask[region]
        mask[:] = 0
        corner = [region[1].start, region[0].start]
        cv2.fillConvexPoly(mask, np.round((uv - corner) * 16).astype(np.int32), 1, cv2.LINE_8, 4)
        return mask.view(bool)

    def face(self, points, normal, colour, owner=-1, bias=1.0, paint=None, count=False) -> None:
        """Paints a convex polygon where it is nearer than what is there.

        Args:
            points: (n, 3) in camera axes.
            normal: Of its plane.
            colour: BGR.
            owner: Number of the agent, or -1.
            bias: Above 1 for details that lie on another face.
            paint: Function of the pixel rays' crossing with the plane (h, w, 3) to a factor (h, w).
            count: Whether its pixels count for the agent's outline (``outline``).
        """
        points = clip_near(points, NEAR)
        if len(points) < 3:
            return
        level = float(normal @ points[0])
        if abs(level) < 1e-6:
            return
        uv = self.project(points)
        region = self._region(uv)
        if region is None:
            return
        mask = self._fill(uv, region)
        across, down = self.across[region[1]], self.down[region[0]]
        a, b, c = (float(n) * bias / level for n in normal)
        inverse = (np.float32(a) * across + np.float32(c)) + (np.float32(b) * down)[:, None]
        depths = points[:, 2].tolist()
        np.minimum(inverse, np.float32(bias / min(depths)), out=inverse)
        np.maximum(inverse, np.float32(bias / max(depths)), out=inverse)
        there = self.inverse[region]
        seen = inverse > there
        seen &= mask
        np.copyto(there, inverse, where=seen)
        np.copyto(self.owner[region], owner, where=seen)
        if paint is not None:
            depth = bias / inverse
            rays = (across[None] * depth, down[:, None] * depth, depth)
            colour = np.minimum(paint(*rays)[..., None] * np.array(colour), 255).astype(np.uint8)
        np.copyto(self.image[region], np.asarray(colour, np.uint8), where=seen[..., None])
        if count:
            np.maximum(self._own[region], self._mask[region], out=self._own[region])

    def outline(self) -> int:
        """Pixels counted since the last call: what would be seen if nothing stood before it."""
        pixels = int(np.count_nonzero(self._own))
        if pixels:
            self._own[:] = 0
        return pixels
