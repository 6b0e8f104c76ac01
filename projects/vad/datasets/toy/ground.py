"""The ground of a scene: asphalt, side walks and paint as polygons, with grain and haze."""

from functools import lru_cache

import cv2
import numpy as np
from shapely.geometry import LineString, Polygon

from .canvas import Canvas
from .rig import Camera, cameras
from .world import ZEBRA, World

ASPHALT, WALK, KERB, GRASS = (84, 84, 86), (148, 152, 156), (178, 180, 182), (62, 112, 92)
WHITE, YELLOW, STRIP = (226, 228, 228), (58, 176, 222), (92, 92, 95)  # BGR
SIGHT = 110.0
GRAIN = 0.06  # metres per pixel of the texture


def _bands(line: np.ndarray, width: float, dash=None) -> list[np.ndarray]:
    """A painted line as short polygons; ``dash`` is (paint, gap) in metres."""
    line = LineString(line)
    paint, gap = dash or (8.0, 0.0)
    out = []
    for s in np.arange(0.0, line.length - 0.5, paint + gap):
        ends = np.linspace(s, min(s + paint, line.length), 3 if paint < 5 else 5)
        xy = np.array([line.interpolate(d).coords[0] for d in ends])
        out.append(
            np.array(LineString(xy).buffer(width / 2, cap_style='flat').exterior.coords)[:-1]
        )
    return out


class Ground:
    """Polygons of a world, in the order they are painted."""

    def __init__(self, world: World):
        parts: list[tuple[tuple, np.ndarray]] = []
        paved = world.drivable.union(world.walkway.buffer(0.01))
        for area, colour in (
            (paved, WALK),
            (world.drivable.buffer(0.18), KERB),
            (world.drivable, ASPHALT),
        ):
            for part in getattr(area, 'geoms', [area]):
                parts.append((colour, np.array(part.simplify(0.03).exterior.coords)[:-1]))
        for arm in world.arms.values():
            inner = arm.lanes * arm.width
            start = world.gap + ZEBRA + 2 if world.junction else 0.0
            for side in (1, -1):
                line = arm.line(side * (inner - 0.08), start)
                if arm.parking:
                    parts += [(WHITE, p) for p in _bands(line, 0.12)]
            for beside in (-0.14, 0.14):
                line = arm.line(beside, start)
                parts += [(YELLOW, p) for p in _bands(line, 0.13)]
        for line in world.lane_dividers:
            parts += [(WHITE, p) for p in _bands(line, 0.15, (3.0, 4.5))]
        for crossing in world.crossings:
            parts += [(ASPHALT, np.array(crossing.area.buffer(0.6).exterior.coords)[:-1])]
            parts += [(WHITE, p) for p in self._stripes(world, crossing)]
        for line in world.stop_lines:
            parts.append((WHITE, np.array(line.area.exterior.coords)[:-1]))
        self.colours = [c for c, _ in parts]
        self.sizes = np.array([len(p) for _, p in parts])
        self.points = np.concatenate([p for _, p in parts])
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])

    @staticmethod
    def _stripes(world: World, crossing) -> list[np.ndarray]:
        arm = world.arms[crossing.arm]
        out = []
        for beside in np.arange(-arm.half + 0.4, arm.half - 0.6, 1.0):
            area: Polygon = arm.strip(crossing.start, crossing.start + ZEBRA, beside + 0.5, beside)
            out.append(np.array(area.simplify(0.02).exterior.coords)[:-1])
        return out

    def draw(self, canvas: Canvas, to_camera: np.ndarray, ego: np.ndarray) -> None:
        """Paints everything in sight; ``to_camera`` (3, 4) takes scene points to camera axes."""
        flat = self.points @ to_camera[:, :2].T + to_camera[:, 3]
        deepest = np.maximum.reduceat(flat[:, 2], self.starts[:-1])
        apart = np.hypot(*(self.points - ego).T)
        nearest = np.minimum.reduceat(apart, self.starts[:-1])
        seen = (deepest > 1.0) & ((nearest < SIGHT) | (self.sizes > 20))
        for i in np.flatnonzero(seen):
            canvas.flat(flat[self.starts[i] : self.starts[i + 1]], self.colours[i])


class Rays:
    """Where the pixels of a camera look, as seen from the ego; it stays the same while it drives."""

    def __init__(self, camera: Camera):
        w, h = camera.size
        matrix = (camera.rotation @ np.linalg.inv(camera.intrinsic)).astype(np.float32)
        u, v = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
        x, y, z = (m[0] * u + m[1] * v + m[2] for m in matrix)
        up = z / np.sqrt(x * x + y * y + z * z)
        ground = up < -0.012
        self.top = int(np.argmax(ground.any(1))) if ground.any() else h  # first row with ground
        self.high = (np.clip(up * 2.6, 0, 1) ** 0.8)[..., None]
        low = slice(self.top, h)
        scale = np.float32(camera.position[2]) / np.maximum(-z[low], 1e-4)
        self.x = x[low] * scale + np.float32(camera.position[0])
        self.y = y[low] * scale + np.float32(camera.position[1])
        far = np.hypot(self.x, self.y)
        self.clear = np.where(ground[low], np.exp(-far / 150), 0).astype(np.float32)[..., None]
        self.fade = np.exp(-far / 14)
        self.ground = ground[..., None]


@lru_cache(maxsize=12)
def _rays(channel: str, size: tuple[int, int]) -> Rays:
    return Rays(next(c for c in cameras(size) if c.channel == channel))


class Air:
    """What lies between and behind: sky, haze and the grain of the ground, for one camera.

    Args:
        camera: One of the rig.
        haze: BGR of the horizon.
        zenith: BGR high up.
        grain: (n, n) float32 texture about 0, of 0.06 m per pixel, repeated over the ground.
    """

    def __init__(self, camera: Camera, haze, zenith, grain: np.ndarray):
        self.rays, self.grain = _rays(camera.channel, camera.size), grain
        haze, zenith = np.float32(haze), np.float32(zenith)
        sky = haze + (zenith - haze) * self.rays.high
        self.sky = np.where(self.rays.ground, haze, sky).astype(np.uint8)
        low = slice(self.rays.top, None)
        self.veil = self.sky[low] * (1 - self.rays.clear)

    def finish(self, image: np.ndarray, pose) -> None:
        """Adds grain, haze and sky to a picture that has only the ground."""
        x, y, yaw = pose
        rays, n = self.rays, len(self.grain)
        image[: rays.top] = self.sky[: rays.top]
        c, s = np.float32(np.cos(yaw) / GRAIN), np.float32(np.sin(yaw) / GRAIN)
        a = rays.x * c - rays.y * s + np.float32(x / GRAIN % n)
        b = rays.x * s + rays.y * c + np.float32(y / GRAIN % n)
        a -= np.floor(a / n) * n
        b -= np.floor(b / n) * n
        grain = cv2.remap(self.grain, a, b, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        grain *= rays.fade
        grain += 1
        low = image[rays.top :]
        mixed = low * (grain[..., None] * rays.clear)
        mixed += self.veil
        np.copyto(low, np.minimum(mixed, 255, out=mixed), casting='unsafe')


def grain(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """A texture of several scales that repeats without a seam."""
    out = np.zeros((size, size), np.float32)
    for scale, weight in ((1, 0.10), (4, 0.05), (32, 0.05), (128, 0.05)):
        small = rng.standard_normal((size // scale, size // scale)).astype(np.float32)
        small = np.pad(small, 2, mode='wrap')
        big = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        out += weight * big[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size]
    return out
