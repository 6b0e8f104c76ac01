"""Agents of the toy world and how they move: along paths, behind leaders, before crossings and lights."""

from dataclasses import dataclass, field

import numpy as np

from .geometry import Path, overlap, rectangle

AHEAD = 55.0  # how far drivers look, metres
DT = 0.1  # simulation step, seconds; the acceleration is constant within one
MAX_ACCEL, COMFORT_BRAKE, HEADWAY, STANDSTILL = 1.9, 2.2, 1.1, 2.8


@dataclass
class Stop:
    """A place on a path where an agent has to stop while ``signal`` is red or walkers cross.

    Args:
        s: Where the agent's front has to stand.
        signal: Times (seconds) between which the light is red, or None for a crossing.
        crossing: Index of the crossing, or None for a light.
        meets: Where the path meets the crossing (2,).
    """

    s: float
    signal: tuple[float, float] | None = None
    crossing: int | None = None
    meets: np.ndarray | None = None


@dataclass
class Agent:
    """Somebody or something on the road.

    Args:
        category: nuScenes category name.
        size: width, length, height in metres.
        path: The way of its reference point (rear axle of a vehicle, centre of others).
        s: Where on the path it starts.
        speed: At the start, m/s.
        cruise: The speed it would like.
        colour: RGB, 0 to 255.
        rear: From the reference point forwards to the centre of the box.
        stops: Where it may have to stop.
        limits: (from, until, speed): what slows it down for a while.
        crossing: For a walker: the crossing it uses, entered at ``gate`` and not before ``start``.
    """

    category: str
    size: tuple[float, float, float]
    path: Path
    s: float = 0.0
    speed: float = 0.0
    cruise: float = 0.0
    colour: tuple[int, int, int] = (128, 128, 128)
    rear: float = 0.0
    stops: list[Stop] = field(default_factory=list)
    limits: list[tuple[float, float, float]] = field(default_factory=list)
    crossing: int | None = None
    gate: tuple[float, float] = (0.0, 0.0)
    start: float = 0.0
    log: np.ndarray | None = None  # (steps, 3): s, v, a after simulate()
    begin: float = 0.0

    def __post_init__(self):
        path = self.path
        top = np.sqrt(2.2 / np.maximum(np.abs(path.curvature), 1e-3))
        top = np.minimum(top, max(self.cruise, 0.01))
        for i in range(len(top) - 2, -1, -1):
            ds = path.s[i + 1] - path.s[i]
            top[i] = min(top[i], np.sqrt(top[i + 1] ** 2 + 2 * 1.4 * ds))
        self.top = top

    @property
    def walker(self) -> bool:
        """Whether it goes on foot."""
        return self.category.startswith('human')

    @property
    def front(self) -> float:
        """From the reference point to the front bumper."""
        return self.rear + self.size[1] / 2

    def motion(self, t):
        """s, v, a at the time(s) ``t`` (seconds, any shape)."""
        k = np.clip(np.floor((np.asarray(t) - self.begin) / DT + 1e-9), 0, len(self.log) - 1)
        k = k.astype(int)
        s, v, a = np.moveaxis(self.log[k], -1, 0)
        tau = np.asarray(t) - self.begin - k * DT
        return s + v * tau + a * tau**2 / 2, v + a * tau, a

    def pose(self, t):
        """x, y, yaw of the centre of its box at the time(s) ``t``."""
        return self.centre(self.motion(t)[0])

    def centre(self, s):
        """x, y, yaw of the centre of its box with the reference point at ``s``."""
        x, y, yaw = self.path.at(s)
        return x + self.rear * np.cos(yaw), y + self.rear * np.sin(yaw), yaw

    def footprint(self, t: float, margin: float = 0.0) -> np.ndarray:
        """Corners (4, 2) at the time ``t``."""
        x, y, yaw = self.pose(t)
        return rectangle((x, y), yaw, self.size[1] + 2 * margin, self.size[0] + 2 * margin)


def follow(speed: float, gap: float, leader: float) -> float:
    """Acceleration of the intelligent driver model towards something at ``leader`` m/s."""
    wish = STANDSTILL + max(
        0.0, speed * HEADWAY + speed * (speed - leader) / (2 * np.sqrt(MAX_ACCEL * COMFORT_BRAKE))
    )
    return MAX_ACCEL * (1 - (wish / max(gap, 0.3)) ** 2)


class Simulation:
    """Moves all agents together.

    Args:
        agents: The first one is the ego.
        begin: Start of the simulated time, seconds.
        end: Its end.
    """

    def __init__(self, agents: list[Agent], begin: float, end: float):
        self.agents, self.begin = agents, begin
        self.steps = int(round((end - begin) / DT)) + 2
        self.s = np.array([a.s for a in agents], float)
        self.v = np.array([a.speed for a in agents], float)
        self.a = np.zeros(len(agents))
        self.walks = np.array([a.walker for a in agents])
        self.reach = np.array([np.hypot(*a.size[:2]) / 2 for a in agents])
        self.marks = self.heading = None
        self.movers = [i for i, a in enumerate(agents) if a.cruise > 0]

    def run(self) -> None:
        """Fills every agent's ``log``."""
        log = np.zeros((len(self.agents), self.steps, 3))
        for k in range(self.steps):
            now = self.begin + k * DT
            marks, heading = self._marks()
            wanted = np.zeros_like(self.a)
            for i in self.movers:
                walker = self.agents[i].walker
                wanted[i] = self._walk(i, now) if walker else self._drive(i, now, marks, heading)
            change = np.clip(wanted - self.a, -1.2, 0.7)
            self.a = np.maximum(self.a + change, -self.v / DT)
            log[:, k] = np.stack([self.s, self.v, self.a], 1)
            self.s = self.s + self.v * DT + self.a * DT**2 / 2
            self.v = np.maximum(self.v + self.a * DT, 0)
        for agent, own in zip(self.agents, log, strict=True):
            agent.log, agent.begin = own, self.begin

    def _marks(self):
        """Points (n, 9, 2) round and in every box, and headings (n,)."""
        if self.marks is None:
            self.marks, self.heading = (
                np.zeros((len(self.agents), 9, 2)),
                np.zeros(len(self.agents)),
            )
            who = range(len(self.agents))
        else:
            who = self.movers
        for i in who:
            agent = self.agents[i]
            x, y, self.heading[i] = agent.centre(self.s[i])
            box = rectangle((x, y), self.heading[i], agent.size[1], agent.size[0])
            self.marks[i, :4], self.marks[i, 4:8] = box, (box + box[[3, 0, 1, 2]]) / 2
            self.marks[i, 8] = x, y
        return self.marks, self.heading

    def _drive(self, i: int, now: float, marks, heading) -> float:
        agent, s, v = self.agents[i], self.s[i], self.v[i]
        top = np.interp(s + 0.4 * v, agent.path.s, agent.top)
        for start, end, limit in agent.limits:
            if start <= now < end:
                top = min(top, limit)
        top = max(top, 0.05)
        accel = MAX_ACCEL * (1 - (v / top) ** 4) if v <= top else max(-(v - top) / 0.6, -3.0)
        nose = s + agent.front
        for stop in agent.stops:
            gap = stop.s - nose
            if -1.0 < gap < 50 and self._closed(stop, now) and v * v / 11 < gap + 0.5:
                accel = min(accel, follow(v, gap + STANDSTILL - 0.5, 0.0))
        gap, leader = self._leader(i, marks, heading, nose)
        if gap < np.inf:
            accel = min(accel, follow(v, gap, leader))
        return float(np.clip(accel, -6.5, MAX_ACCEL))

    def _leader(self, i: int, marks, heading, nose: float) -> tuple[float, float]:
        """Gap to and speed of the nearest thing in the way; (inf, 0) without one."""
        agent, s = self.agents[i], self.s[i]
        x, y, yaw = agent.path.at(s)
        delta = marks[:, 8] - [x, y]
        reach = np.hypot(*delta.T)
        near = (reach < AHEAD + 6) & (delta @ [np.cos(yaw), np.sin(yaw)] > -0.5 * reach - 5)
        near[i] = False
        near = np.flatnonzero(near)
        if not len(near):
            return np.inf, 0.0
        beside = agent.path.project(marks[near, 8], s - 1, s + AHEAD + 4, 4)[1]
        near = near[np.abs(beside) < self.reach[near] + agent.size[0] / 2 + 2.5]
        if not len(near):
            return np.inf, 0.0
        ahead = np.stack([np.cos(heading[near]), np.sin(heading[near])], 1)
        soon = 0.8 * (self.walks[near] * self.v[near])[:, None] * ahead
        points = np.concatenate([marks[near], marks[near, 8:] + soon[:, None]], 1)
        along, beside = agent.path.project(points.reshape(-1, 2), s - 1, s + AHEAD, 2)
        along, beside = along.reshape(points.shape[:2]), beside.reshape(points.shape[:2])
        hit = (np.abs(beside) < agent.size[0] / 2 + 0.35) & (along > nose - agent.size[1] * 0.6)
        hit &= along < s + AHEAD - 1
        gaps = np.where(hit, along - nose, np.inf)
        nearest = gaps.min(1)
        j = int(np.argmin(nearest))
        if nearest[j] == np.inf:
            return np.inf, 0.0
        turn = np.cos(heading[near[j]] - agent.path.at(nose + nearest[j])[2])
        return float(nearest[j]), max(0.0, float(self.v[near[j]] * turn))

    def _closed(self, stop: Stop, now: float) -> bool:
        """Whether a light is red, or a walker is on the crossing and hasn't passed the path."""
        if stop.signal is not None:
            return stop.signal[0] <= now < stop.signal[1]
        for j, other in enumerate(self.agents):
            if other.crossing == stop.crossing and other.walker:
                passed = float(other.path.project(stop.meets[None])[0][0]) + 2.0
                if other.gate[0] + 0.15 < self.s[j] < min(passed, other.gate[1]):
                    return True
        return False

    def _walk(self, i: int, now: float) -> float:
        agent = self.agents[i]
        wish = agent.cruise
        at_gate = agent.crossing is not None and abs(self.s[i] - agent.gate[0]) < 0.6
        if at_gate and self.s[i] <= agent.gate[0] + 0.1 and not self._may_cross(agent, now):
            wish = 0.0
        return float(np.clip((wish - self.v[i]) / 0.4, -3, 2))

    def _may_cross(self, walker: Agent, now: float) -> bool:
        """Whether every vehicle is far enough from the crossing to stop."""
        if now < walker.start:
            return False
        for j, other in enumerate(self.agents):
            for stop in other.stops:
                if stop.crossing == walker.crossing:
                    gap = stop.s - self.s[j] - other.front
                    if -(other.size[1] + 7) < gap < 1 + self.v[j] ** 2 / 4.5 and self.v[j] > 0.3:
                        return False
        return True


def collides(agents: list[Agent], end: float) -> bool:
    """Whether any mover overlaps anything (0.3 m more for the ego) between 0 and ``end`` seconds."""
    for t in np.arange(0.0, end, 2 * DT):
        boxes = [a.footprint(t, 0.3 if i == 0 else 0.0) for i, a in enumerate(agents)]
        middle = np.array([b.mean(0) for b in boxes])
        reach = np.array([np.hypot(*a.size[:2]) / 2 + 0.5 for a in agents])
        for i, agent in enumerate(agents):
            if agent.cruise <= 0:
                continue
            apart = np.linalg.norm(middle - middle[i], axis=1)
            for j in np.flatnonzero(apart < reach + reach[i]):
                if j == i or (agents[j].cruise > 0 and j < i):
                    continue
                both_walk = agent.walker and agents[j].walker
                if not both_walk and overlap(boxes[i], boxes[j]):
                    return True
    return False
