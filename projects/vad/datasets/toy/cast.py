"""Puts agents into a world: vehicles on routes, parked ones, walkers, a work zone."""

import numpy as np
from shapely import contains_xy

from .geometry import Path, overlap, rectangle, shifted
from .traffic import Agent, Stop
from .world import ZEBRA, World

PARKED = ['vehicle.car'] * 16 + [
    'vehicle.truck',
    'vehicle.trailer',
    'vehicle.motorcycle',
    'vehicle.bicycle',
    'site',
    'site',
]
EGO_SIZE, EGO_REAR = (1.85, 4.084, 1.56), 1.40
PAINT = [
    (196, 30, 34),
    (28, 60, 130),
    (222, 222, 224),
    (36, 38, 42),
    (150, 154, 160),
    (90, 94, 98),
    (228, 180, 40),
    (40, 96, 66),
    (120, 24, 40),
    (176, 160, 130),
    (70, 130, 180),
]
CLOTHES = [
    (170, 40, 50),
    (40, 70, 140),
    (60, 110, 70),
    (210, 190, 60),
    (90, 60, 110),
    (40, 40, 44),
    (200, 200, 196),
    (210, 110, 50),
]
SIZES = {  # width, length, height
    'vehicle.car': (1.90, 4.60, 1.60),
    'vehicle.truck': (2.45, 7.20, 3.00),
    'vehicle.bus.rigid': (2.80, 11.2, 3.30),
    'vehicle.motorcycle': (0.80, 2.10, 1.55),
    'vehicle.bicycle': (0.62, 1.75, 1.70),
    'vehicle.construction': (2.50, 5.60, 2.90),
    'vehicle.trailer': (2.40, 8.00, 3.20),
    'human.pedestrian.adult': (0.66, 0.70, 1.76),
    'human.pedestrian.child': (0.50, 0.52, 1.28),
    'human.pedestrian.construction_worker': (0.70, 0.74, 1.80),
    'movable_object.trafficcone': (0.40, 0.40, 0.85),
    'movable_object.barrier': (2.20, 0.55, 1.05),
}


class Cast:
    """The agents of one scene; the first is the ego.

    Args:
        world: The roads.
        rng: Where chance comes from.
        red: For each arm the time span in which its light is red.
    """

    def __init__(self, world: World, rng: np.random.Generator, red: dict | None = None):
        self.world, self.rng, self.red = world, rng, red or {}
        self.agents: list[Agent] = []

    def _size(self, category: str) -> tuple[float, float, float]:
        vary = self.rng.uniform(0.94, 1.06, 3)
        return tuple(float(round(x, 3)) for x in np.array(SIZES[category]) * vary)

    def _stops(self, path: Path, start: int) -> list[Stop]:
        stops = []
        for i, crossing in enumerate(self.world.crossings):
            inside = contains_xy(crossing.area, path.xy[:, 0], path.xy[:, 1])
            if not inside.any():
                continue
            k = int(np.argmax(inside))
            middle = path.xy[min(k + int(ZEBRA / 2 / path.step), len(path.xy) - 1)]
            s = float(path.s[k]) - 1.4
            lit = self.world.lights and abs(crossing.start - self.world.gap) < 4
            if lit and crossing.arm == start and start in self.red:
                stops.append(Stop(s, signal=self.red[start]))
            stops.append(Stop(s, crossing=i, meets=middle))
        return stops

    def drive(self, route, before: float, category='vehicle.car', cruise=None, changes=(), **more):
        """A vehicle on a route (arm, lane, arm), ``before`` metres short of the origin.

        Args:
            changes: (from, length, distance) of its lane changes, metres from the origin.
        """
        xy = self.world.route(*route)
        origin = Path(xy).project(np.zeros((1, 2)))[0][0]
        for start, length, distance in changes:
            xy = shifted(xy, origin + start, length, distance)
        path = Path(xy)
        ego = not self.agents
        size = EGO_SIZE if ego else self._size(category)
        rear = EGO_REAR if ego else 0.0 if size[1] < 2.5 else 0.3 * size[1]
        cruise = self.rng.uniform(7.5, 10.5) if cruise is None else cruise
        agent = Agent(
            category,
            size,
            path,
            origin - before - rear,
            0.0,
            cruise,
            rear=rear,
            colour=PAINT[self.rng.integers(len(PAINT))],
            stops=self._stops(path, route[0]),
            **more,
        )
        agent.speed = float(np.interp(agent.s, path.s, agent.top))
        for stop in agent.stops:
            gap = stop.s - agent.s - agent.front
            if stop.signal and stop.signal[0] < 0 < stop.signal[1] and gap > -1:
                agent.speed = min(agent.speed, np.sqrt(4 * max(gap - 0.5, 0)))
        return self._add(agent)

    def _add(self, agent: Agent) -> Agent | None:
        """Lets the agent in unless somebody stands there already."""
        x, y, yaw = agent.centre(agent.s)
        own = rectangle((x, y), yaw, agent.size[1] + 0.8, agent.size[0] + 0.3)
        for other in self.agents:
            ox, oy, oyaw = other.centre(other.s)
            if np.hypot(ox - x, oy - y) > 16:
                continue
            if overlap(own, rectangle((ox, oy), oyaw, other.size[1], other.size[0])):
                return None
        self.agents.append(agent)
        return agent

    def stand(self, category: str, x: float, y: float, yaw: float, colour=(128, 128, 128)):
        """Something that stays where it is."""
        ahead = np.array([[0.0, 0.0], [1.0, 0.0]]) @ [
            [np.cos(yaw), np.sin(yaw)],
            [-np.sin(yaw), np.cos(yaw)],
        ]
        path = Path(ahead + [x, y])
        return self._add(Agent(category, self._size(category), path, colour=colour))

    def park(self, arm: int, side: int, start: float, end: float, share=0.6) -> None:
        """Parked vehicles along a kerb; ``side`` +1 is the left one, seen from the origin."""
        a = self.world.arms[arm]
        if a.parking < 2:
            return
        path = Path(a.line(side * (a.half - a.parking / 2 - 0.05), 0.0))
        s = start
        while s < end:
            kind = str(self.rng.choice(PARKED))
            length = 9.0 if kind == 'site' else SIZES[kind][1]
            clear = all(
                c.arm != arm or not c.start - length < s < c.start + ZEBRA + length
                for c in self.world.crossings
            )
            if clear and kind == 'site':
                self._site(path, s)
            elif clear and self.rng.random() < share:
                x, y, yaw = path.at(s + length / 2)
                paint = PAINT[self.rng.integers(len(PAINT))]
                flip = np.pi if side > 0 else 0.0
                self.stand(kind, x, y, yaw + flip + self.rng.normal(0, 0.015), paint)
            s += length + self.rng.uniform(1.0, 3.0)

    def _site(self, path: Path, start: float) -> None:
        """A small work site on the strip along a kerb."""
        cone, barrier = 'movable_object.trafficcone', 'movable_object.barrier'
        worker = 'human.pedestrian.construction_worker'
        for kind, s, beside in (
            (barrier, 0.5, 0.0), (cone, 2.0, 0.7), (cone, 4.0, 0.75), (worker, 4.5, -0.3),
            (cone, 6.0, 0.7), (barrier, 8.5, 0.0),
        ):  # fmt: skip
            x, y, yaw = path.at(start + s)
            side = beside * float(self.rng.choice([-1, 1]))
            turn = self.rng.uniform(-3, 3) if kind == worker else 0.0
            at = x - side * np.sin(yaw), y + side * np.cos(yaw)
            self.stand(kind, *at, yaw + turn, (240, 120, 20))

    def _person(self):
        """Category, size, colour and walking speed of somebody."""
        category = 'human.pedestrian.' + ('child' if self.rng.random() < 0.15 else 'adult')
        colour = CLOTHES[self.rng.integers(len(CLOTHES))]
        return category, self._size(category), colour, self.rng.uniform(1.1, 1.6)

    def stroll(self, arm: int, side: int, at: float, outwards: bool) -> None:
        """Somebody who walks along the side walk."""
        a = self.world.arms[arm]
        beside = side * (a.half + a.walk * self.rng.uniform(0.25, 0.7))
        xy = a.line(beside, max(self.world.gap, 1.0))
        path = Path(xy if outwards else xy[::-1])
        category, size, colour, speed = self._person()
        s = at - self.world.gap if outwards else path.length - at
        if self.rng.random() < 0.15:
            x, y, yaw = path.at(s)
            self.stand(category, x, y, yaw + self.rng.uniform(-2, 2), colour)
        else:
            self._add(Agent(category, size, path, s, speed, speed, colour))

    def cross(self, crossing: int, start: float, reverse=False, done: float = 0.0) -> None:
        """Somebody who crosses the road from ``start`` seconds on, ``done`` metres along already."""
        c = self.world.crossings[crossing]
        a, b = c.across[::-1] if reverse else c.across
        way = (b - a) / np.linalg.norm(b - a)
        aside = np.array([-way[1], way[0]]) * self.rng.uniform(0.25, 1.2)
        begin, road = 1.5, float(np.linalg.norm(b - a))
        path = Path(np.array([a - way * begin, b + way * 9]) + aside)
        category, size, colour, speed = self._person()
        gate = begin - 0.5
        wait = gate - max(0.0, self.rng.uniform(0.0, 0.3))
        agent = Agent(
            category,
            size,
            path,
            gate + done if done else wait,
            speed if done else 0.0,
            speed,
            colour,
            crossing=crossing,
            gate=(gate, begin + road + 0.3),
            start=start,
        )
        self._add(agent)

    def work_zone(self, arm: int, beside: float, start: float, length: float) -> None:
        """Cones, barriers, a machine and workers on a lane of an arm (right of its centre line)."""
        path = Path(self.world.arms[arm].line(-beside, 0.0))
        width = self.world.arms[arm].width
        for i in range(4):
            x, y, yaw = path.at(start + 2.2 * i)
            out = (i / 3 - 0.5) * (width - 0.9)
            self.stand(
                'movable_object.trafficcone', x - out * np.sin(yaw), y + out * np.cos(yaw), yaw
            )
        for s in np.arange(start + 9.5, start + length, 3.0):
            x, y, yaw = path.at(s)
            out = width / 2 - 0.55
            self.stand(
                'movable_object.barrier',
                x - out * np.sin(yaw),
                y + out * np.cos(yaw),
                yaw + np.pi / 2,
            )
        x, y, yaw = path.at(start + 13.5)
        self.stand('vehicle.construction', x + 0.5 * np.sin(yaw), y - 0.5 * np.cos(yaw), yaw)
        for s in (start + 18.5, start + 20.0):
            x, y, yaw = path.at(s)
            self.stand(
                'human.pedestrian.construction_worker',
                x,
                y,
                self.rng.uniform(-3, 3),
                (240, 120, 20),
            )
