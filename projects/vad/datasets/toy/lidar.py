"""A simulated LiDAR sweep: rays against the ground and boxes."""

import numpy as np

from .rig import LIDAR_POSITION

RINGS = np.radians(np.linspace(-30.0, 10.0, 32))
COLUMNS = 720
RANGE = 70.0


def sweep(pose, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One turn of the LiDAR.

    Args:
        pose: x, y, yaw of the ego.
        boxes: (n, 7): x, y, z of the centre, length, width, height, yaw; the ego isn't among them.
        rng: For a little range noise.

    Returns:
        Points (m, 5) in the LiDAR frame: x (right), y (ahead), z, intensity, ring; and the number
        of points on each box (n,).
    """
    ex, ey, yaw = pose
    c, s = np.cos(yaw), np.sin(yaw)
    origin = np.array([ex + LIDAR_POSITION[0] * c, ey + LIDAR_POSITION[0] * s, LIDAR_POSITION[2]])
    turn = np.arange(COLUMNS) * 2 * np.pi / COLUMNS  # in the scene's frame
    reach = np.full((len(RINGS), COLUMNS), np.inf)
    down = RINGS < -0.01
    reach[down] = (LIDAR_POSITION[2] / np.sin(-RINGS[down]))[:, None]
    owner = np.full(reach.shape, -1)
    for i, (x, y, z, length, width, height, angle) in enumerate(boxes):
        apart = np.hypot(x - origin[0], y - origin[1])
        half = np.hypot(length, width) / 2
        if apart - half > RANGE:
            continue
        span = np.pi if apart < half + 0.5 else np.arcsin(min(half / apart, 1.0)) + 0.01
        middle = np.arctan2(y - origin[1], x - origin[0])
        first, last = (
            int(np.floor(a / (2 * np.pi) * COLUMNS)) for a in (middle - span, middle + span)
        )
        columns = np.arange(first, min(last, first + COLUMNS - 1) + 1) % COLUMNS
        hit = _slabs(
            origin - [x, y, z], turn[columns], angle, np.array([length, width, height]) / 2
        )
        nearer = hit < reach[:, columns]
        reach[:, columns] = np.where(nearer, hit, reach[:, columns])
        owner[:, columns] = np.where(nearer, i, owner[:, columns])
    ring, column = np.nonzero((reach > 1.2) & (reach < RANGE))
    r = reach[ring, column] + rng.normal(0, 0.01, len(ring))
    flat, az = r * np.cos(RINGS[ring]), turn[column] - yaw
    ahead, left = flat * np.cos(az), flat * np.sin(az)
    up = r * np.sin(RINGS[ring])
    whose = owner[ring, column]
    shine = np.where(whose < 0, 12.0, 20.0 + (whose * 37) % 60)
    points = np.stack([-left, ahead, up, shine, ring], 1).astype(np.float32)
    return points, np.bincount(whose[whose >= 0], minlength=len(boxes))


def _slabs(origin: np.ndarray, turn: np.ndarray, angle: float, half: np.ndarray) -> np.ndarray:
    """Distance (rings, columns) at which rays from ``origin`` enter a box at 0; inf without a hit."""
    c, s = np.cos(angle), np.sin(angle)
    o = np.array([origin[0] * c + origin[1] * s, origin[1] * c - origin[0] * s, origin[2]])
    flat, up = np.cos(RINGS)[:, None], np.sin(RINGS)[:, None]
    near = np.full((len(RINGS), len(turn)), -np.inf)
    far = np.full(near.shape, np.inf)
    for k, d in enumerate((flat * np.cos(turn - angle), flat * np.sin(turn - angle), up)):
        d = np.where(np.abs(d) < 1e-9, 1e-9, d)
        a, b = (-half[k] - o[k]) / d, (half[k] - o[k]) / d
        near, far = np.maximum(near, np.minimum(a, b)), np.minimum(far, np.maximum(a, b))
    return np.where((near <= far) & (near > 0), near, np.inf)
