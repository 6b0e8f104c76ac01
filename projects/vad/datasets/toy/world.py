"""Roads of the toy world: two or four arms that meet, with lanes, crossings and side walks.

Everything is in the frame of its scene: the arms meet at the origin, the ego comes from the west.
Traffic keeps to the right.
"""

from dataclasses import dataclass, field

import numpy as np
from shapely.geometry import LineString, Polygon
from shapely.ops import unary_union

from .geometry import bend, joint, offset, tangents

EAST, NORTH, WEST, SOUTH = 0, 1, 2, 3
ZEBRA = 3.6  # length of a crossing along the road
CORNER = 6.0  # kerb radius at junctions


@dataclass
class Arm:
    """One road that leaves the origin.

    Args:
        centre: Centre line (n, 2), outwards from the origin, vertices 1 m apart.
        lanes: Lanes for each direction.
        width: Of a lane.
        parking: Width of the strip for parked vehicles on each side.
        walk: Width of the side walks.
    """

    centre: np.ndarray
    lanes: int
    width: float
    parking: float
    walk: float

    @property
    def half(self) -> float:
        """From the centre line to the kerb."""
        return self.lanes * self.width + self.parking

    def line(self, beside: float, start: float, end: float | None = None) -> np.ndarray:
        """The centre line moved to its left, where the centre is ``start`` to ``end`` metres out."""
        xy, station = offset(self.centre, beside), np.arange(float(len(self.centre)))
        end = station[-1] if end is None else end
        s = np.linspace(start, end, max(int(end - start), 1) + 1)
        return np.stack([np.interp(s, station, xy[:, i]) for i in (0, 1)], 1)

    def lane(self, index: int, inwards: bool, start: float) -> np.ndarray:
        """Middle of a lane in the direction of travel; index 0 is beside the centre line."""
        beside = (index + 0.5) * self.width
        line = self.line(beside if inwards else -beside, start)
        return line[::-1] if inwards else line

    def strip(self, start: float, end: float, left: float, right: float) -> Polygon:
        """The area between two lines beside the centre line."""
        a, b = self.line(left, start, end), self.line(right, start, end)
        return Polygon(np.concatenate([a, b[::-1]]))


@dataclass
class Lane:
    """A lane of the map: its middle (n, 2), its area, and what joins it."""

    middle: np.ndarray
    area: Polygon
    connector: bool = False
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


@dataclass
class Crossing:
    """A zebra crossing over an arm: from ``start`` to ``start + ZEBRA`` metres from the origin."""

    arm: int
    start: float
    area: Polygon
    across: np.ndarray  # the way over it, kerb to kerb (2, 2)


@dataclass
class StopLine:
    """Where traffic stops: before a crossing or a light."""

    arm: int
    area: Polygon
    crossing: int
    light: bool


class World:
    """The roads of one scene.

    Args:
        arms: Two or four, keyed by their side of the origin.
        zebras: Arm and distance of each crossing.
        gap: How far from the origin the arms end; 0 for a road without a junction.
        lights: Whether there are traffic lights.
    """

    def __init__(
        self, arms: dict[int, Arm], zebras: list[tuple[int, float]], gap=0.0, lights=False
    ):
        self.arms, self.gap, self.lights = arms, gap, lights
        self.junction = gap > 0
        ends = {k: float(len(a.centre) - 2) for k, a in arms.items()}
        strips = {k: a.strip(0.0, ends[k], a.half, -a.half) for k, a in arms.items()}
        joined = unary_union([s.buffer(0.01) for s in strips.values()])
        self.drivable = joined.buffer(CORNER).buffer(-CORNER) if self.junction else joined
        walk = min(a.walk for a in arms.values())
        self.walkway = self.drivable.buffer(walk).difference(self.drivable)
        self.crossings = [self._crossing(*z) for z in zebras]
        self.stop_lines = self._stop_lines()
        self.lanes = self._lanes(ends)
        self.segments = self._segments(ends)
        self.road_dividers, self.lane_dividers = self._dividers(ends)

    def _segments(self, ends) -> list[tuple[Polygon, bool]]:
        """Road segments and whether each is a junction."""
        if not self.junction:
            return [(self.drivable, False)]
        arms = [
            a.strip(self.gap, ends[k], a.half, -a.half).intersection(self.drivable)
            for k, a in self.arms.items()
        ]
        outside = [
            a.strip(self.gap + 0.6, ends[k] + 1, a.half + 1, -a.half - 1)
            for k, a in self.arms.items()
        ]  # segments overlap, so that their union has no slits
        middle = self.drivable.difference(unary_union(outside))
        middle = max(getattr(middle, 'geoms', [middle]), key=lambda g: g.area)
        return [(a, False) for a in arms] + [(middle, True)]

    def _crossing(self, arm: int, start: float) -> Crossing:
        a = self.arms[arm]
        middle = start + ZEBRA / 2
        ends = [a.line(side * a.half, middle - 0.5, middle + 0.5).mean(0) for side in (1, -1)]
        area = a.strip(start, start + ZEBRA, a.half, -a.half)
        return Crossing(arm, start, area, np.array(ends))

    def _stop_lines(self) -> list[StopLine]:
        lines = []
        for i, c in enumerate(self.crossings):
            a = self.arms[c.arm]
            near = abs(c.start - self.gap) < 4
            beyond = c.start + ZEBRA + 1.0
            inner = a.lanes * a.width
            lines.append(
                StopLine(c.arm, a.strip(beyond, beyond + 0.5, inner, 0.1), i, near and self.lights)
            )
            if not near and c.start > 3:
                before = c.start - 1.5
                lines.append(StopLine(c.arm, a.strip(before, before + 0.5, -0.1, -inner), i, False))
        return lines

    def _lanes(self, ends) -> dict[str, Lane]:
        lanes = {}
        start = max(self.gap, 0.5)
        for k, a in self.arms.items():
            for i in range(a.lanes):
                for inwards, name in ((True, 'in'), (False, 'out')):
                    sides = (i * a.width, min((i + 1) * a.width, a.half - 0.06))
                    left, right = sides if inwards else (-sides[0], -sides[1])
                    lanes[f'{k}-{name}-{i}'] = Lane(
                        a.lane(i, inwards, start), a.strip(start, ends[k] - 0.2, left, right)
                    )
        for k, j in [(k, j) for k in self.arms for j in self.arms if k != j]:
            for i, o in self.turns(k, j):
                a, b = lanes[f'{k}-in-{i}'], lanes[f'{j}-out-{o}']
                way = joint(
                    a.middle[-1], tangents(a.middle)[-1], b.middle[0], tangents(b.middle)[0]
                )
                area = LineString(way).buffer(self.arms[k].width / 2, cap_style='flat')
                key = f'{k}-{i}-{j}-{o}'
                lanes[key] = Lane(way, area, True, [f'{k}-in-{i}'], [f'{j}-out-{o}'])
                a.after.append(key)
                b.before.append(key)
        return lanes

    def turns(self, start: int, end: int) -> list[tuple[int, int]]:
        """Pairs of lanes that a way from one arm to another may join."""
        a, b = self.arms[start].lanes, self.arms[end].lanes
        if len(self.arms) == 2 or (end - start) % 4 == 2:
            return [(i, min(i, b - 1)) for i in range(a)]
        return [(a - 1, b - 1)] if (end - start) % 4 == 1 else [(0, 0)]

    def route(self, start: int, lane: int, end: int) -> np.ndarray:
        """The polyline along a lane of one arm, through the junction and out by another arm."""
        out = dict(self.turns(start, end))[lane]
        keys = (f'{start}-in-{lane}', f'{start}-{lane}-{end}-{out}', f'{end}-out-{out}')
        parts = [self.lanes[k].middle for k in keys]
        return np.concatenate([parts[0], parts[1][1:-1], parts[2]])

    def _dividers(self, ends):
        """Lines between the directions and between lanes of one direction (open at junctions)."""
        road, lane = [], []
        for k, a in self.arms.items():
            start = self.gap
            if self.junction:
                start += ZEBRA + 2.2
            road.append(a.line(0.0, start, ends[k]))
            for i in range(1, a.lanes):
                lane += [a.line(side * i * a.width, start, ends[k]) for side in (1, -1)]
        return road, lane


def corridor(rng, length, lanes, curvature=0.0, angle=0.6, parking=2.3, zebras=()) -> World:
    """A road without a junction, from west to east, that bends east of the origin."""
    width, walk = rng.uniform(3.4, 3.7), rng.uniform(2.6, 3.6)
    east = bend(0.0, 12.0, curvature, angle, length)
    west = bend(np.pi, length, 0.0, 0.0, length)
    arms = {k: Arm(c, lanes, width, parking, walk) for k, c in ((EAST, east), (WEST, west))}
    return World(arms, list(zebras))


def junction(rng, length, lanes=(1, 1), parking=(0.0, 0.0), sides=(0, 1, 2, 3), zebras=()) -> World:
    """Arms that meet at right angles; each index of a pair: east and west, north and south."""
    width, walk = rng.uniform(3.4, 3.7), rng.uniform(2.6, 3.6)
    gap = max(n * width + p for n, p in zip(lanes, parking, strict=True)) + CORNER
    arms = {}
    for side in sides:
        curvature = rng.choice([0.0, 0.0, 1 / 130, -1 / 130])
        centre = bend(side * np.pi / 2, 60.0, curvature, 0.6, length)
        arms[side] = Arm(centre, lanes[side % 2], width, parking[side % 2], walk)
    near = [(side, gap + 0.8) for side in sides]
    return World(arms, near + list(zebras), gap, lights=True)
