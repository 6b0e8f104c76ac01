"""What stands beside the road: buildings, trees, lamps and traffic lights."""

from dataclasses import dataclass

import numpy as np
from shapely import STRtree
from shapely.geometry import Point, Polygon

from .geometry import offset, rectangle, tangents
from .world import World

WALLS = [
    (150, 120, 100),
    (176, 164, 148),
    (120, 124, 130),
    (166, 90, 70),
    (196, 190, 176),
    (104, 96, 92),
    (140, 146, 156),
    (184, 150, 110),
]
LEAVES = [(58, 96, 44), (74, 112, 50), (50, 84, 48), (96, 120, 54)]


@dataclass(frozen=True)
class Thing:
    """A building, tree, lamp or light.

    Args:
        kind: ``'building'``, ``'tree'``, ``'lamp'`` or ``'light'``.
        x: Of its middle, in the scene's frame.
        y: The same.
        yaw: Where its front looks.
        size: length, width, height.
        colour: RGB.
        arm: The arm that a light is for.
        seed: For its looks.
    """

    kind: str
    x: float
    y: float
    yaw: float
    size: tuple[float, float, float]
    colour: tuple[int, int, int]
    arm: int = -1
    seed: int = 0


def scenery(world: World, rng: np.random.Generator) -> list[Thing]:
    """Things along all arms, none of them on the road or the side walk."""
    paved = world.drivable.union(world.walkway.buffer(0.01))
    things, taken = [], []
    for arm in world.arms.values():
        reach = len(arm.centre) - 4
        for side in (-1, 1):
            edge = side * (arm.half + arm.walk)
            s = world.gap * 0.4
            while s < reach - 30:
                width, depth = rng.uniform(9, 24), rng.uniform(8, 14)
                back = rng.uniform(1.0, 6.0) + depth / 2
                x, y, yaw = _spot(arm, edge + side * back, s + width / 2)
                own = Polygon(rectangle((x, y), yaw, width, depth))
                free = own.distance(paved) > 0.6 and not any(own.intersects(t) for t in taken)
                if free and rng.random() < 0.8:
                    taken.append(own)
                    wall = WALLS[rng.integers(len(WALLS))]
                    height = rng.uniform(6, 22)
                    things.append(
                        Thing(
                            'building',
                            x,
                            y,
                            yaw,
                            (width, depth, height),
                            wall,
                            seed=int(rng.integers(1 << 30)),
                        )
                    )
                s += width + rng.uniform(0.5, 9)
    tree = STRtree(taken) if taken else None
    for arm in world.arms.values():
        reach = len(arm.centre) - 4
        for side in (-1, 1):
            edge = side * (arm.half + arm.walk)
            for s in np.arange(world.gap + rng.uniform(2, 8), reach - 20, 9.0):
                x, y, yaw = _spot(arm, edge + side * 0.9, s + rng.uniform(-3, 3))
                if not _free(x, y, paved, tree, 0.5):
                    continue
                height = rng.uniform(4.5, 8.5)
                leaf = LEAVES[rng.integers(len(LEAVES))]
                kind = 'lamp' if rng.random() < 0.3 else 'tree'
                size = (0.25, 0.25, 7.0) if kind == 'lamp' else (0.35, 0.35, height)
                colour = (92, 96, 98) if kind == 'lamp' else leaf
                things.append(Thing(kind, x, y, yaw, size, colour, seed=int(rng.integers(1 << 30))))
    return things + _lights(world)


def _spot(arm, beside: float, s: float):
    """x, y and yaw of a place beside an arm."""
    i = int(np.clip(round(s), 1, len(arm.centre) - 2))
    xy = offset(arm.centre[i - 1 : i + 2], beside)[1]
    t = tangents(arm.centre[i - 1 : i + 2])[1]
    return float(xy[0]), float(xy[1]), float(np.arctan2(t[1], t[0]))


def _free(x, y, paved, tree, margin: float) -> bool:
    spot = Point(x, y)
    return paved.distance(spot) > 0.2 and (tree is None or not len(tree.query(spot.buffer(margin))))


def _lights(world: World) -> list[Thing]:
    """A traffic light beside the stop line of every arm of a junction, and one beyond it."""
    if not world.lights:
        return []
    out = []
    for key, arm in world.arms.items():
        x, y, yaw = _spot(arm, arm.half + 0.6, world.gap + 0.2)
        out.append(Thing('light', x, y, yaw, (0.2, 0.2, 4.2), (60, 62, 64), arm=key))
        opposite = world.arms.get((key + 2) % 4)
        if opposite is not None:
            x, y, yaw = _spot(opposite, -(opposite.half + 0.6), world.gap + 0.2)
            out.append(Thing('light', x, y, yaw + np.pi, (0.2, 0.2, 4.2), (60, 62, 64), arm=key))
    return out
