"""VAD boxes as entries of a nuScenes detection submission."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

#: Range in metres along x and y within which a class counts, measured from the vehicle.
Ranges = Mapping[str, tuple[float, float]]

#: What a box is said to do, by class, when it moves faster than :data:`MOVING` and when it doesn't.
ATTRIBUTES = {
    'car': ('vehicle.moving', 'vehicle.parked'),
    'truck': ('vehicle.moving', 'vehicle.parked'),
    'trailer': ('vehicle.moving', 'vehicle.parked'),
    'construction_vehicle': ('vehicle.moving', 'vehicle.parked'),
    'bus': ('vehicle.moving', 'vehicle.stopped'),
    'motorcycle': ('cycle.with_rider', 'cycle.without_rider'),
    'bicycle': ('cycle.with_rider', 'cycle.without_rider'),
    'pedestrian': ('pedestrian.moving', 'pedestrian.standing'),
    'traffic_cone': ('', ''),
    'barrier': ('', ''),
}
#: Metres per second.
MOVING = 0.2


class Boxes(NamedTuple):
    """Boxes of one sample: VAD boxes ``(n, 9)``, scores ``(n,)`` and class names."""

    boxes: np.ndarray
    scores: np.ndarray
    names: Sequence[str]


def attribute(name: str, speed: float) -> str:
    """The attribute of a box, guessed from its class and its speed in metres per second."""
    moving, still = ATTRIBUTES[name]
    return moving if speed > MOVING else still


def within(centers: np.ndarray, names: Sequence[str], ranges: Ranges) -> np.ndarray:
    """Whether centres ``(n, >= 2)`` in the vehicle's frame are inside the ranges of their class."""
    limits = np.array([ranges[name] for name in names]).reshape(-1, 2)
    return (np.abs(centers[:, :2]) <= limits).all(axis=1)


def annotations(
    found: Boxes, lidar2ego: np.ndarray, ego2global: np.ndarray, token: str, ranges: Ranges
) -> list[dict]:
    """Submission entries, in the global frame, of the boxes within range that have a size.

    Args:
        found: Boxes in the lidar frame.
        lidar2ego: ``(4, 4)``.
        ego2global: ``(4, 4)``.
        token: The sample's.
        ranges: By class name; measured along the vehicle's own axes.
    """
    boxes = found.boxes.astype(np.float64)
    centers = boxes[:, :3] + [0, 0, 0.5] * boxes[:, 5:6]
    centers = centers @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
    usable = np.isfinite(boxes).all(axis=1) & (boxes[:, 3:6] > 0).all(axis=1)
    keep = within(centers, found.names, ranges) & usable
    turn = ego2global[:3, :3] @ lidar2ego[:3, :3]
    centers = centers @ ego2global[:3, :3].T + ego2global[:3, 3]
    velocity = np.pad(boxes[:, 7:9], ((0, 0), (0, 1))) @ turn.T
    angles = np.nan_to_num(-boxes[:, 6] - np.pi / 2)
    headings = Rotation.from_rotvec(angles[:, None] * [0, 0, 1])
    rotation = (Rotation.from_matrix(turn) * headings).as_quat()[:, [3, 0, 1, 2]]
    return [
        dict(
            sample_token=token,
            translation=centers[i].tolist(),
            size=boxes[i, 3:6].tolist(),
            rotation=rotation[i].tolist(),
            velocity=velocity[i, :2].tolist(),
            detection_name=found.names[i],
            detection_score=float(found.scores[i]),
            attribute_name=attribute(found.names[i], float(np.hypot(*velocity[i, :2]))),
        )
        for i in np.flatnonzero(keep)
    ]
