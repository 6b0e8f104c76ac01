"""Where each scene of the toy drive lies on the map, and when it takes place."""

from dataclasses import dataclass

import numpy as np

LOCATION = 'boston-seaport'
CANVAS = (2979.5, 2118.1)  # of that map, metres
MASK = '36092f0b03a857c6a3403e25b4b7aab3.png'  # its name in every nuScenes release
TRAIN = (
    'scene-0061',
    'scene-0553',
    'scene-0655',
    'scene-0757',
    'scene-0796',
    'scene-1077',
    'scene-1094',
    'scene-1100',
)
VAL = ('scene-0103', 'scene-0916')
START = 1_533_151_603_000_000  # microseconds


@dataclass(frozen=True)
class Place:
    """The map frame of a scene: a turn, then a shift.

    Args:
        x: Of the scene's origin on the map, metres.
        y: The same.
        yaw: Of the scene's x axis on the map, radians.
        utime: Of the first key frame, microseconds.
    """

    x: float
    y: float
    yaw: float
    utime: int

    def to_map(self, xy: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the scene's frame in the map's."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.asarray(xy) @ np.array([[c, s], [-s, c]]) + [self.x, self.y]

    def at(self, t: float) -> int:
        """Microseconds at ``t`` seconds after the first key frame."""
        return self.utime + int(round(t * 1e6))


def places(count: int, seed: int) -> list[Place]:
    """A tile of the map for each scene."""
    rng = np.random.default_rng([seed, 31])
    out = []
    for i in range(count):
        x = (i % 5 + 0.5) * CANVAS[0] / 5
        y = (i // 5 + 0.5) * CANVAS[1] / 2
        out.append(Place(x, y, float(rng.uniform(-np.pi, np.pi)), START + i * 100_000_000))
    return out
