"""The car's own path round a key frame, and the command that leads along it."""

import math

import numpy as np

from .can_bus import SceneCan
from .geometry import to_local

PAST, FUTURE = 2, 6
#: Metres to the side, after three seconds, from which on the command is to turn.
TURN = 2.0
#: Seconds between key frames.
STEP = 0.5
LENGTH, WIDTH = 4.084, 1.85
RIGHT, LEFT, STRAIGHT = np.eye(3, dtype=np.float32)


def ego_fields(path: np.ndarray, i: int, pose: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of a record that tell of the car's path, in the LiDAR frame of key frame i.

    Args:
        path: ``(S, 3)`` positions of the LiDAR at a scene's key frames, global, metres.
        i: The key frame.
        pose: ``(4, 4)`` of its LiDAR.
    """
    ahead = np.minimum(i + np.arange(FUTURE + 1), len(path) - 1)
    future = to_local(path[ahead], pose)
    return dict(
        fut_valid_flag=i + FUTURE < len(path),
        gt_ego_his_trajs=_offsets(to_local(history(path, i), pose)),
        gt_ego_fut_trajs=_offsets(future),
        gt_ego_fut_masks=(i + 1 + np.arange(FUTURE) < len(path)).astype(np.float32),
        gt_ego_fut_cmd=command(future[-1, 0]).copy(),
    )


def command(x: float) -> np.ndarray:
    """One-hot ``(3,)``, right, left or straight on, for a path that ends ``x`` metres to the right."""
    if x >= TURN:
        return RIGHT
    return LEFT if x <= -TURN else STRAIGHT


def history(path: np.ndarray, i: int) -> np.ndarray:
    """The last two positions before i, and i itself: ``(3, 3)``, oldest first.

    Before the scene's start the car is taken to have moved as in the first known interval.
    """
    points = [path[i]]
    offset = path[i + 1] - path[i] if i + 1 < len(path) else np.zeros(3)
    for k in range(i - 1, i - 1 - PAST, -1):
        if k >= 0:
            offset = path[k + 1] - path[k]
            points.append(path[k])
        else:
            points.append(points[-1] - offset)
    return np.stack(points[::-1])


def state_feature(
    poses: list[dict],
    i: int,
    fields: dict,
    can_bus: np.ndarray,
    can: SceneCan,
    time: int,
    town: str,
) -> np.ndarray:
    """``gt_ego_lcf_feat`` ``(9,)``: what the original project writes there, kept number for number.

    Velocity x and y, acceleration x and y, yaw rate, length, width, speed, curvature. The first two
    and the yaw rate are not what they are called: quaternions (w, x, y, z) are read as (x, y, z, w).
    No published configuration feeds this to the network.

    Args:
        poses: The scene's ego poses at its key frames.
        i: The key frame.
        fields: Its :func:`ego_fields`.
        can_bus: Its CAN vector ``(18,)``.
        can: The scene's messages.
        time: Microseconds.
        town: Name of its map.
    """
    feature = np.zeros(9)
    near = (i - 1, i) if i > 0 else (i, min(i + 1, len(poses) - 1))
    before, after = (poses[k] for k in near)
    step = np.subtract(after['translation'], before['translation'])[:2]
    speed = np.linalg.norm(step) / STEP
    yaw = _misread_yaw(poses[i]['rotation']) + math.pi / 2
    feature[0], feature[1] = speed * math.cos(yaw), speed * math.sin(yaw)
    feature[2:4] = can_bus[7:9]
    turned = _misread_yaw(after['rotation']) - _misread_yaw(before['rotation'])
    feature[4] = turned / STEP
    feature[5:7] = LENGTH, WIDTH
    measured = can.speed_and_curvature(time, left_hand_traffic=town.startswith('singapore'))
    if measured is None:
        one_second = fields['gt_ego_his_trajs'][-1] + fields['gt_ego_fut_trajs'][0]
        measured = float(np.linalg.norm(one_second)), 0.0
    feature[7:9] = measured
    return feature.astype(np.float32)


def _misread_yaw(rotation: list[float]) -> float:
    x, y, z, w = rotation
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (z * z + y * y))


def _offsets(points: np.ndarray) -> np.ndarray:
    return np.diff(points, axis=0)[:, :2].astype(np.float32)
