"""What happens in each scene of the toy drive."""

from dataclasses import dataclass

import numpy as np

from .cast import Cast
from .traffic import Agent, Simulation, collides
from .world import EAST, NORTH, SOUTH, WEST, World, corridor, junction

BEFORE, AFTER = 0.6, 0.8  # seconds simulated before the first and after the last key frame
TRAIN_KINDS = ('left', 'follow', 'right', 'lane_change', 'crossing', 'red', 'curve', 'straight')
NEVER = (1e9, 1e9)


@dataclass
class Scenario:
    """One scene that has been played: the roads, who moved how, and the lights.

    Args:
        red: For each arm with a light the time span in which it is red.
    """

    kind: str
    world: World
    agents: list[Agent]
    red: dict[int, tuple[float, float]]

    @property
    def ego(self) -> Agent:
        """The vehicle with the cameras."""
        return self.agents[0]


def kinds(train: int, val: int, seed: int) -> list[str]:
    """What happens in each training and each validation scene."""
    rng = np.random.default_rng([seed, 977])
    turns, roads = rng.permutation(['left', 'right']), ['crossing', 'follow']
    first, second = (turns[0], roads[rng.integers(2)])
    return [*TRAIN_KINDS[:train], *[str(first), str(second)][:val]]


def play(kind: str, seed: list[int], duration: float) -> Scenario:
    """The scenario of a kind, drawn until nobody collides and the ego gets somewhere.

    Args:
        kind: One of TRAIN_KINDS.
        seed: Numbers that fix the chance.
        duration: From the first to the last key frame, seconds.

    Raises:
        RuntimeError: no draw out of 40 was acceptable.
    """
    for attempt in range(40):
        rng = np.random.default_rng([*seed, attempt])
        world, cast = STORIES[kind](rng, float(np.clip(100 + 11 * duration, 150, 270)))
        Simulation(cast.agents, -BEFORE, duration + AFTER).run()
        ego = cast.agents[0]
        travelled = float(ego.motion(duration)[0] - ego.motion(0.0)[0])
        if travelled > 1.2 * duration and not collides(cast.agents, duration + AFTER):
            return Scenario(kind, world, cast.agents, cast.red)
    raise RuntimeError(f'no scene of kind {kind} without a collision in 40 draws (seed {seed})')


def _bystanders(cast: Cast, rng, ahead: float) -> None:
    """Parked vehicles and people on the side walks, on both sides."""
    for arm in cast.world.arms:
        for side in (-1, 1):
            start = cast.world.gap + 7 if cast.world.junction else 4
            cast.park(arm, side, start, ahead, rng.uniform(0.35, 0.7))
            for _ in range(rng.integers(2, 5)):
                at = rng.uniform(cast.world.gap + 3, ahead)
                cast.stroll(arm, side, at, bool(rng.integers(2)))


def _stream(cast: Cast, rng, route, first: float, count: int, space=(14, 30), **more) -> None:
    """Vehicles one behind the other."""
    at = first
    for _ in range(count):
        kind = rng.choice(['vehicle.car'] * 6 + ['vehicle.truck', 'vehicle.bus.rigid', 'bike'])
        cruise = None
        if kind == 'bike':
            kind = str(rng.choice(['vehicle.bicycle', 'vehicle.motorcycle']))
            cruise = rng.uniform(4, 5.5) if kind == 'vehicle.bicycle' else None
        cast.drive(route, at, str(kind), cruise, **more)
        at += rng.uniform(*space) + (6 if 'bus' in str(kind) else 0)


def _crowd(cast: Cast, rng, crossing: int, start: float, count: int, done=False) -> None:
    for i in range(count):
        along = rng.uniform(0.5, 4) if done and i % 2 == 0 else 0.0
        cast.cross(crossing, start + rng.uniform(0, 2.0), bool(rng.integers(2)), along)


def _junction(rng, length, end: int, wait: float = 0.0):
    """The ego comes to a junction with lights and leaves by the arm ``end``."""
    lanes = tuple(int(x) for x in rng.integers(1, 3, 2))
    parking = tuple(float(x) for x in rng.choice([0.0, 2.3], 2))
    world = junction(
        rng, length, lanes, parking, zebras=[(EAST, 75.0), (NORTH, 70.0), (SOUTH, 70.0)]
    )
    left = end == NORTH
    green = (-10.0, wait) if wait else NEVER
    cross_red = (wait - 3.5, 1e9)
    red = {WEST: green, EAST: (-10.0, 1e9) if left else green, NORTH: cross_red, SOUTH: cross_red}
    cast = Cast(world, rng, red)
    lane = world.turns(WEST, end)[0 if left or end == SOUTH else -1][0]
    start = rng.uniform(26, 36) + world.gap + (12 if wait else 0)
    cast.drive((WEST, lane, end), start, cruise=rng.uniform(8, 10.5))
    if rng.random() < 0.5 or wait or end == EAST:
        pause = rng.uniform(1.0, 2.5)
        limits = [(pause, pause + 2.5, rng.uniform(1.5, 4))] if end == EAST and not wait else []
        ahead = rng.uniform(15, 19)
        cast.drive((WEST, lane, end), start - ahead, cruise=rng.uniform(8, 10), limits=limits)
    _stream(cast, rng, (WEST, lane, end), start + rng.uniform(14, 20), 2)
    for other in {i for i, _ in world.turns(WEST, EAST)} - {lane}:
        _stream(cast, rng, (WEST, other, EAST), start + rng.uniform(-16, 12), 2)
    for i, _ in world.turns(EAST, WEST):
        _stream(cast, rng, (EAST, i, WEST), world.gap + rng.uniform(8, 16), 3, (9, 22))
    for arm, opposite in ((NORTH, SOUTH), (SOUTH, NORTH)):
        for i, _ in world.turns(arm, opposite):
            gap = world.gap + (rng.uniform(9, 12) if not wait else rng.uniform(2, 14))
            _stream(cast, rng, (arm, i, opposite), gap, int(rng.integers(1, 4)), (8.5, 14))
    for i, crossing in enumerate(world.crossings[:4]):
        if crossing.arm in (NORTH, SOUTH):
            _crowd(cast, rng, i, max(wait, 0.0) + rng.uniform(0, 4), int(rng.integers(1, 3)))
        elif wait > 3:
            _crowd(cast, rng, i, 0.0, 1, done=True)
    _crowd(cast, rng, 3 + end if end == SOUTH else 4 + end, rng.uniform(6, 9), 2)
    _bystanders(cast, rng, 75)
    return world, cast


def _road(rng, length, zebra=None, lead=None, curvature=0.0, angle=0.6, cruise=(8, 11), walkers=0):
    """The ego on a road without a junction, perhaps with a leader and a crossing ahead."""
    zebras = [(EAST, zebra), (EAST, zebra + 70)] if zebra else [(EAST, 60.0)]
    world = corridor(rng, length, int(rng.integers(1, 3)), curvature, angle, zebras=zebras)
    cast = Cast(world, rng)
    lane = int(rng.integers(world.arms[WEST].lanes))
    start = rng.uniform(22, 30)
    cast.drive((WEST, lane, EAST), start, cruise=rng.uniform(*cruise))
    if lead:
        pause = rng.uniform(1.0, 2.0)
        limits = [(pause, pause + rng.uniform(2.0, 3.0), rng.uniform(*lead))]
        cast.drive((WEST, lane, EAST), start - rng.uniform(15, 19), limits=limits)
    ahead = start - rng.uniform(38, 48) if lead else start - rng.uniform(80, 90)
    _stream(cast, rng, (WEST, lane, EAST), ahead, 1)
    _stream(cast, rng, (WEST, lane, EAST), start + rng.uniform(14, 20), 2)
    for other in set(range(world.arms[WEST].lanes)) - {lane}:
        _stream(cast, rng, (WEST, other, EAST), start + rng.uniform(-35, -25), 4, (15, 30))
    for i in range(world.arms[WEST].lanes):
        _stream(cast, rng, (EAST, i, WEST), rng.uniform(-35, -15), 6, (15, 32))
    if walkers:
        _crowd(cast, rng, 0, rng.uniform(0.3, 1.0), walkers, done=True)
        _crowd(cast, rng, 1, rng.uniform(8, 11), 2)
    _bystanders(cast, rng, 90)
    return world, cast


def _lane_change(rng, length):
    world = corridor(
        rng, length, 2, rng.choice([0, 1, -1]) / 150, parking=2.3, zebras=[(EAST, 90.0)]
    )
    cast = Cast(world, rng)
    width, start = world.arms[WEST].width, rng.uniform(20, 26)
    zone = rng.uniform(18, 24)
    changes = [(zone - 31, 24.0, width), (zone + 28, 24.0, -width)]
    cast.drive((WEST, 1, EAST), start, cruise=rng.uniform(8, 10.5), changes=changes)
    cast.work_zone(EAST, 1.5 * width, zone, 24.0)
    _stream(cast, rng, (WEST, 0, EAST), start - rng.uniform(24, 30), 1)
    _stream(cast, rng, (WEST, 0, EAST), start + rng.uniform(24, 30), 2)
    for i in range(2):
        _stream(cast, rng, (EAST, i, WEST), rng.uniform(-35, -15), 6, (15, 32))
    _bystanders(cast, rng, 90)
    return world, cast


STORIES = {
    'left': lambda rng, n: _junction(rng, n, NORTH),
    'right': lambda rng, n: _junction(rng, n, SOUTH),
    'straight': lambda rng, n: _junction(rng, n, EAST),
    'red': lambda rng, n: _junction(rng, n, int(rng.choice([NORTH, EAST])), rng.uniform(4.0, 5.0)),
    'crossing': lambda rng, n: _road(rng, n, zebra=rng.uniform(8, 14), walkers=4),
    'follow': lambda rng, n: _road(
        rng,
        n,
        rng.uniform(26, 32),
        (0.5, 3.0),
        rng.choice([-1, 1]) / rng.uniform(70, 110),
        walkers=2,
    ),
    'curve': lambda rng, n: _road(
        rng, n, curvature=rng.choice([-1, 1]) / rng.uniform(24, 32), angle=1.3, cruise=(10, 12)
    ),
    'lane_change': _lane_change,
}
