"""Where sensors were, seen from the LiDAR of the key frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..infos import CAMERAS
from .geometry import inverse_pose, pose_matrix

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

MAX_SWEEPS = 10


def cameras(nusc: NuScenes, sample: dict, lidar2global: np.ndarray) -> dict[str, dict]:
    """The six cameras of a key frame, in the network's order, each with its intrinsic matrix."""
    views = {}
    for name in CAMERAS:
        token = sample['data'][name]
        views[name] = view = _sensor(nusc, token, lidar2global, name)
        record = nusc.get('sample_data', token)
        mounted = nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
        view['cam_intrinsic'] = np.array(mounted['camera_intrinsic'], dtype=np.float64)
    return views


def sweeps(nusc: NuScenes, sample: dict, lidar2global: np.ndarray) -> list[dict]:
    """Up to ten LiDAR sweeps before the key frame, the newest first."""
    found = []
    token = nusc.get('sample_data', sample['data']['LIDAR_TOP'])['prev']
    while token and len(found) < MAX_SWEEPS:
        found.append(_sensor(nusc, token, lidar2global, 'lidar'))
        token = nusc.get('sample_data', token)['prev']
    return found


def _sensor(nusc: NuScenes, token: str, lidar2global: np.ndarray, kind: str) -> dict:
    """A recording: its file (relative to the data root), its poses, and its pose to the LiDAR.

    Each sensor has the car's pose at its own time, so its pose to the LiDAR holds what the car
    moved in between.
    """
    record = nusc.get('sample_data', token)
    mounted = nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
    ego = nusc.get('ego_pose', record['ego_pose_token'])
    sensor2lidar = inverse_pose(lidar2global) @ pose_matrix(ego) @ pose_matrix(mounted)
    return dict(
        data_path=record['filename'],
        type=kind,
        sample_data_token=record['token'],
        sensor2ego_translation=mounted['translation'],
        sensor2ego_rotation=mounted['rotation'],
        ego2global_translation=ego['translation'],
        ego2global_rotation=ego['rotation'],
        timestamp=record['timestamp'],
        sensor2lidar_rotation=sensor2lidar[:3, :3].copy(),
        sensor2lidar_translation=sensor2lidar[:3, 3].copy(),
    )
