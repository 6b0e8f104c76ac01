"""What the agents look like: polygons in the unit box of each category.

Unit box: x ahead and y left from -0.5 to 0.5, z up from 0 to 1; scaled by length, width, height.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# fixed colours, RGB; 'body' is the agent's own colour
COLOURS = dict(
    glass=(38, 46, 54),
    tyre=(24, 24, 26),
    under=(30, 30, 32),
    head=(244, 244, 226),
    tail=(120, 16, 20),
    brake=(255, 40, 30),
    skin=(214, 170, 140),
    trousers=(46, 48, 62),
    steel=(120, 122, 126),
    orange=(238, 104, 20),
    white=(238, 238, 236),
    cargo=(214, 214, 210),
    yellow=(226, 176, 30),
    rim=(150, 152, 156),
    dark=(60, 62, 66),
    plate=(230, 226, 200),
    hair=(50, 36, 28),
)
GLOWS = ('head', 'brake')  # not shaded


@dataclass(frozen=True)
class Face:
    """A convex polygon (n, 3) seen from one side, its material, and whether it's a small detail."""

    points: np.ndarray
    normal: np.ndarray
    material: str
    detail: bool = False


def _face(points, middle, material, detail=False) -> Face:
    points = np.array(points, float)
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    if normal @ (points.mean(0) - middle) < 0:
        points, normal = points[::-1], -normal
    return Face(points, normal / np.linalg.norm(normal), material, detail)


def loft(low, high, z0: float, z1: float, sides: str | tuple, top: str) -> list[Face]:
    """A frustum between two rectangles (x0, x1, y half) at two heights, without its floor.

    Args:
        sides: Material of front, back, left and right, or of all four.
    """
    (a0, a1, aw), (b0, b1, bw) = low, high
    base = [(a0, -aw, z0), (a1, -aw, z0), (a1, aw, z0), (a0, aw, z0)]
    roof = [(b0, -bw, z1), (b1, -bw, z1), (b1, bw, z1), (b0, bw, z1)]
    middle = np.mean(base + roof, 0)
    names = (sides,) * 4 if isinstance(sides, str) else sides
    faces = [_face(roof, middle, top)]
    for (i, j), name in zip(((1, 2), (3, 0), (2, 3), (0, 1)), names, strict=True):
        faces.append(_face([base[i], base[j], roof[j], roof[i]], middle, name))
    return faces


def block(x0, x1, half, z0, z1, sides, top=None) -> list[Face]:
    """An upright box."""
    own = top or (sides if isinstance(sides, str) else sides[0])
    return loft((x0, x1, half), (x0, x1, half), z0, z1, sides, own)


def _side(points, y: float, material: str) -> list[Face]:
    """The same detail on the left and the right side; points are (x, z)."""
    return [
        _face([(x, side * y, z) for x, z in points], np.zeros(3) + [0, 0, 0.5], material, True)
        for side in (-1, 1)
    ]


def _end(x: float, patches, material: str) -> list[Face]:
    """Details on the front (x > 0) or the back: rectangles (y0, y1, z0, z1)."""
    return [
        _face([(x, a, c), (x, b, c), (x, b, d), (x, a, d)], np.array([0, 0, 0.5]), material, True)
        for a, b, c, d in patches
    ]


def _wheels(at, rx: float, rz: float, y: float) -> list[Face]:
    faces = []
    angle = np.arange(10) * 2 * np.pi / 10
    for x in at:
        for scale, material, out in ((1.0, 'tyre', 0.0), (0.55, 'rim', 0.004)):
            ring = [(x + scale * rx * np.cos(a), rz + scale * rz * np.sin(a)) for a in angle]
            faces += _side(ring, y + out, material)
    return faces


def _lamps(front: str, back: str, z0, z1, y=0.44, w=0.15, x=0.502) -> list[Face]:
    pair = [(y - w, y, z0, z1), (-y, -y + w, z0, z1)]
    return _end(x, pair, front) + _end(-x, pair, back)


def _car(back: str) -> list[Face]:
    faces = block(-0.49, 0.49, 0.47, 0.08, 0.2, 'under')
    faces += loft((-0.5, 0.5, 0.5), (-0.5, 0.485, 0.485), 0.16, 0.56, 'body', 'body')
    faces += loft((-0.47, 0.27, 0.47), (-0.37, 0.08, 0.39), 0.56, 1.0, ('glass',) * 4, 'body')
    faces += _side([(-0.16, 0.57), (-0.12, 0.57), (-0.12, 0.97), (-0.16, 0.97)], 0.44, 'body')
    faces += _wheels((-0.31, 0.31), 0.072, 0.205, 0.502)
    faces += _lamps('head', back, 0.40, 0.51)
    faces += _end(-0.503, [(-0.13, 0.13, 0.3, 0.38)], 'plate')
    return faces + _end(0.503, [(-0.25, 0.25, 0.24, 0.36)], 'dark')


def _bus(back: str) -> list[Face]:
    faces = block(-0.5, 0.5, 0.5, 0.1, 1.0, 'body', 'cargo')
    faces += block(-0.49, 0.49, 0.47, 0.04, 0.1, 'under')
    for i in range(7):
        x = -0.46 + i * 0.133
        faces += _side([(x, 0.48), (x + 0.115, 0.48), (x + 0.115, 0.84), (x, 0.84)], 0.503, 'glass')
    faces += _end(0.502, [(-0.45, 0.45, 0.36, 0.84)], 'glass') + _end(
        -0.502, [(-0.4, 0.4, 0.5, 0.84)], 'glass'
    )
    return faces + _wheels((-0.28, 0.33), 0.045, 0.15, 0.502) + _lamps('head', back, 0.18, 0.27)


def _truck(back: str) -> list[Face]:
    faces = block(-0.5, 0.24, 0.5, 0.3, 1.0, 'cargo', 'cargo') + block(
        -0.5, 0.5, 0.46, 0.12, 0.3, 'under'
    )
    faces += block(0.26, 0.5, 0.48, 0.16, 0.82, 'body', 'body')
    faces += _end(0.502, [(-0.42, 0.42, 0.5, 0.76)], 'glass')
    faces += _side([(0.34, 0.5), (0.47, 0.5), (0.47, 0.74), (0.34, 0.74)], 0.485, 'glass')
    faces += _end(-0.502, [(-0.02, 0.02, 0.34, 0.96)], 'dark')
    return faces + _wheels((-0.33, 0.36), 0.07, 0.165, 0.502) + _lamps('head', back, 0.2, 0.29)


def _trailer(back: str) -> list[Face]:
    faces = block(-0.5, 0.5, 0.5, 0.3, 1.0, 'cargo', 'cargo') + block(
        -0.5, 0.45, 0.4, 0.15, 0.3, 'under'
    )
    return faces + _wheels((-0.35, -0.22), 0.06, 0.15, 0.502) + _lamps('dark', back, 0.22, 0.29)


def _digger(back: str) -> list[Face]:
    faces = block(-0.5, 0.3, 0.5, 0.0, 0.28, 'dark', 'dark') + block(
        -0.48, 0.12, 0.46, 0.3, 0.62, 'yellow'
    )
    faces += block(-0.1, 0.14, 0.3, 0.62, 1.0, 'glass', 'yellow')
    faces += block(0.12, 0.42, 0.07, 0.55, 0.78, 'yellow') + block(
        0.38, 0.5, 0.2, 0.05, 0.7, 'steel'
    )
    return faces


def _cycle(back: str, motor: bool, empty: bool) -> list[Face]:
    frame = 'body' if motor else 'steel'
    faces = block(-0.3, 0.3, 0.3 if motor else 0.1, 0.22, 0.5 if motor else 0.42, frame)
    faces += block(0.24, 0.3, 0.46, 0.56, 0.61, 'dark')
    faces += _wheels((-0.33, 0.33), 0.17 if motor else 0.19, 0.19, 0.12)
    if empty:
        return faces + block(-0.34, 0.05, 0.2, 0.5, 0.56, 'dark')
    faces += block(-0.17, 0.1, 0.38, 0.34, 0.56, 'trousers') + block(
        -0.18, 0.06, 0.42, 0.52, 0.84, 'body'
    )
    faces += block(-0.08, 0.09, 0.2, 0.84, 1.0, 'white' if motor else 'skin', 'white')
    return faces + _end(-0.36, [(-0.15, 0.15, 0.36, 0.44)], back)


def _person(stride: float) -> list[Face]:
    faces = []
    for side in (-1, 1):
        legs = block(-0.13 + side * stride, 0.13 + side * stride, 0.14, 0.0, 0.48, 'trousers')
        arms = block(-0.1 - side * stride * 0.8, 0.1 - side * stride * 0.8, 0.09, 0.46, 0.8, 'body')
        for part, y in ((legs, 0.17), (arms, 0.41)):
            faces += [Face(f.points + [0, side * y, 0], f.normal, f.material) for f in part]
    faces += loft((-0.19, 0.19, 0.33), (-0.17, 0.17, 0.36), 0.46, 0.83, 'body', 'body')
    return faces + block(-0.15, 0.15, 0.15, 0.85, 1.0, ('skin', 'hair', 'skin', 'skin'), 'hair')


def _cone() -> list[Face]:
    faces = block(-0.5, 0.5, 0.5, 0.0, 0.06, 'dark')
    for a, b, name in ((0.06, 0.4, 'orange'), (0.4, 0.65, 'white'), (0.65, 1.0, 'orange')):
        ra, rb = 0.36 * (1.12 - a), 0.36 * (1.12 - b)
        faces += loft((-ra, ra, ra), (-rb, rb, rb), a, b, name, name)
    return faces


def _barrier() -> list[Face]:
    faces = loft((-0.5, 0.5, 0.5), (-0.25, 0.25, 0.5), 0.0, 1.0, 'cargo', 'cargo')
    for i in range(-2, 2):
        for s in (-1, 1):
            x = [(s * 0.41, 0.36), (s * 0.33, 0.7)]
            y = i * 0.25 + 0.02, i * 0.25 + 0.16
            points = [
                (x[0][0], y[0], x[0][1]),
                (x[0][0], y[1], x[0][1]),
                (x[1][0], y[1], x[1][1]),
                (x[1][0], y[0], x[1][1]),
            ]
            faces.append(_face(points, np.array([0, 0, 0.5]), 'orange', True))
    return faces


@lru_cache(maxsize=64)
def shape(category: str, braking: bool, step: int, still: bool = False) -> tuple[Face, ...]:
    """The faces of a category.

    Args:
        category: nuScenes category name.
        braking: Whether its brake lights are on.
        step: Of a walker's stride, 0 to 7; 0 for those who stand.
        still: Whether it never moves: cycles then have no rider.
    """
    back = 'brake' if braking else 'tail'
    makers = {
        'vehicle.bus.rigid': lambda: _bus(back),
        'vehicle.truck': lambda: _truck(back),
        'vehicle.trailer': lambda: _trailer(back),
        'vehicle.construction': lambda: _digger(back),
        'vehicle.motorcycle': lambda: _cycle(back, True, still),
        'vehicle.bicycle': lambda: _cycle(back, False, still),
        'movable_object.trafficcone': _cone,
        'movable_object.barrier': _barrier,
    }
    if category.startswith('human'):
        return tuple(_person(0.28 * np.sin(step * np.pi / 4)))
    return tuple(makers.get(category, lambda: _car(back))())
