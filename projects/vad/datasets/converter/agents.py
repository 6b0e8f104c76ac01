"""Boxes of a key frame, and where each of them goes in the next three seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .geometry import conjugate, multiply, to_local, unit, xyz_yaw, zyx_yaw

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

STEPS = 6
STATIC = 9
#: Categories that the detection task knows; others keep their own name and are left out later.
CLASS_OF_CATEGORY = {
    'movable_object.barrier': 'barrier',
    'movable_object.trafficcone': 'traffic_cone',
    'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'pedestrian',
    'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian',
    'vehicle.bicycle': 'bicycle',
    'vehicle.bus.bendy': 'bus',
    'vehicle.bus.rigid': 'bus',
    'vehicle.car': 'car',
    'vehicle.construction': 'construction_vehicle',
    'vehicle.motorcycle': 'motorcycle',
    'vehicle.trailer': 'trailer',
    'vehicle.truck': 'truck',
}


class Annotations:
    """The whole table of annotations as arrays, so that a frame's tracks are looked up at once."""

    def __init__(self, nusc: NuScenes) -> None:
        table = nusc.sample_annotation
        row = {record['token']: i for i, record in enumerate(table)}
        category = {record['name']: i for i, record in enumerate(nusc.category)}
        self.row = row
        self.names = [record['category_name'] for record in table]
        self.category = np.array([category[name] for name in self.names], dtype=np.int64)
        self.center = _column(table, 'translation', 3)
        self.size = _column(table, 'size', 3)
        self.rotation = unit(_column(table, 'rotation', 4)) if table else np.zeros((0, 4))
        self.lidar_points = np.array([r['num_lidar_pts'] for r in table], dtype=np.int64)
        self.radar_points = np.array([r['num_radar_pts'] for r in table], dtype=np.int64)
        self.next = np.array([row.get(record['next'], -1) for record in table], dtype=np.int64)


def agent_fields(
    nusc: NuScenes, table: Annotations, sample: dict, lidar2global: np.ndarray, rotation: np.ndarray
) -> dict[str, np.ndarray]:
    """The fields of a record that tell of N boxes, in the LiDAR frame of the key frame.

    Args:
        nusc: The tables.
        table: Their annotations.
        sample: The key frame.
        lidar2global: Pose ``(4, 4)`` of the LiDAR.
        rotation: The same pose's quaternion ``(4,)``.
    """
    rows = np.array([table.row[token] for token in sample['anns']], dtype=np.int64)
    centers = to_local(table.center[rows], lidar2global)
    turn = conjugate(unit(rotation))
    yaw = xyz_yaw(multiply(turn, table.rotation[rows]))
    sizes = table.size[rows]
    velocity = np.array([nusc.box_velocity(token) for token in sample['anns']]).reshape(-1, 3)
    velocity = (velocity * [1, 1, 0] @ lidar2global[:3, :3])[:, :2]

    future, exists = _future_rows(table.next, rows)
    track = to_local(table.center[future], lidar2global)[..., :2]
    offsets = np.diff(track, axis=1)
    turned = np.diff(zyx_yaw(multiply(turn, table.rotation[future])), axis=1)
    # An agent's state: x, y, yaw, vx, vy, width, length, height, category
    state = [centers[:, :2], yaw[:, None], velocity, sizes, table.category[rows, None]]
    names = [CLASS_OF_CATEGORY.get(table.names[row], table.names[row]) for row in rows]
    lidar_points, radar_points = table.lidar_points[rows], table.radar_points[rows]
    return dict(
        gt_boxes=np.concatenate([centers, sizes, (-yaw - np.pi / 2)[:, None]], axis=1),
        gt_names=np.array(names, dtype=str),
        gt_velocity=velocity,
        num_lidar_pts=lidar_points,
        num_radar_pts=radar_points,
        valid_flag=lidar_points + radar_points > 0,
        gt_agent_fut_trajs=offsets.reshape(len(rows), STEPS * 2).astype(np.float32),
        gt_agent_fut_masks=exists.astype(np.float32),
        gt_agent_fut_yaw=turned.astype(np.float32),
        gt_agent_fut_goal=goals(track).astype(np.float32),
        gt_agent_lcf_feat=np.concatenate(state, axis=1).astype(np.float32),
    )


def goals(track: np.ndarray) -> np.ndarray:
    """Where N agents are heading between the first and the last of their future points.

    Octants 0 to 7 count anticlockwise from -x; 9 is "static": neither x nor y grows by a metre. That
    agents which move towards -x or -y alone are called static is how published info files have it.

    Args:
        track: ``(N, 1 + steps, 2)`` metres, the present first.

    Returns:
        ``(N,)``.
    """
    moved = track[:, -1] - track[:, 1]
    octant = (np.arctan2(moved[:, 1], moved[:, 0]) + np.pi) // (np.pi / 4)
    return np.where(moved.max(axis=1) < 1.0, STATIC, octant)


def _future_rows(following: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(N, 7)`` of tracks from now on, standing still after their end, and where they exist."""
    future = [rows]
    exists = []
    alive = np.ones(len(rows), dtype=bool)
    for _ in range(STEPS):
        after = following[future[-1]]
        alive = alive & (after >= 0)
        future.append(np.where(alive, after, future[-1]))
        exists.append(alive)
    return np.stack(future, axis=1), np.stack(exists, axis=1)


def _column(table: list[dict], key: str, width: int) -> np.ndarray:
    return np.array([record[key] for record in table], dtype=np.float64).reshape(-1, width)
