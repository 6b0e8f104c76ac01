"""A small drive: a made-up info file with noise for images."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from projects.vad.datasets.infos import CAMERAS

HEIGHT, WIDTH = 90, 160


def make_camera(path: str, yaw: float) -> dict:
    """A camera that looks ``yaw`` radians to the left of straight ahead."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[cos, 0.0, -sin], [sin, 0.0, cos], [0.0, -1.0, 0.0]])
    return dict(
        data_path=path,
        cam_intrinsic=np.array([[120.0, 0, 80], [0, 120.0, 45], [0, 0, 1]]),
        sensor2lidar_rotation=rotation,
        sensor2lidar_translation=np.array([0.1, 0.7, -0.3]),
        sensor2ego_rotation=[1.0, 0.0, 0.0, 0.0],
        sensor2ego_translation=[0.0, 0.0, 0.0],
    )


def make_info(scene: int, frame: int, num_boxes: int = 5, num_vectors: int = 3) -> dict:
    """One record; boxes at x = 0, 4, 8, 12, 16 m, of which the last is out of range."""
    rng = np.random.default_rng(scene * 100 + frame)
    n, yaw = num_boxes, 0.1 * frame - 0.2
    boxes = rng.normal(size=(n, 7))
    boxes[:, 0], boxes[:, 3:6] = 4 * np.arange(n), (2.0, 4.0, 1.6)
    return dict(
        token=f's{scene}f{frame}',
        prev='',
        next='',
        scene_token=f'scene{scene}',
        frame_idx=frame,
        timestamp=1_500_000_000_000_000 + (scene * 100 + frame) * 500_000,
        lidar_path='',
        sweeps=[],
        lidar2ego_translation=[0.9, 0.0, 1.8],
        lidar2ego_rotation=[0.7071067811865476, 0.0, 0.0, -0.7071067811865476],
        ego2global_translation=[100.0 + 3 * frame, 200.0 + frame, 0.5],
        ego2global_rotation=[np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)],
        cams={
            name: make_camera(f'./data/nuscenes/samples/{name}/s{scene}f{frame}.png', -k)
            for k, name in enumerate(CAMERAS)
        },
        can_bus=rng.normal(size=18),
        fut_valid_flag=frame < 2,
        map_location='singapore-onenorth',
        gt_boxes=boxes,
        gt_names=np.array(['car', 'pedestrian', 'animal', 'truck', 'bus'] * 2)[:n],
        gt_velocity=np.where(np.arange(n)[:, None] == 1, np.nan, rng.normal(size=(n, 2))),
        num_lidar_pts=np.array([1, 1, 1, 0, 1] * 2)[:n],
        num_radar_pts=np.ones(n, int),
        valid_flag=np.arange(n) >= 0,
        gt_agent_fut_trajs=rng.normal(size=(n, 12)).astype(np.float32),
        gt_agent_fut_masks=np.ones((n, 6), np.float32),
        gt_agent_fut_goal=np.full(n, 9, np.float32),
        gt_agent_lcf_feat=rng.normal(size=(n, 9)).astype(np.float32),
        gt_agent_fut_yaw=rng.normal(size=(n, 6)).astype(np.float32),
        gt_ego_his_trajs=rng.normal(size=(2, 2)).astype(np.float32),
        gt_ego_fut_trajs=rng.normal(size=(6, 2)).astype(np.float32),
        gt_ego_fut_masks=np.ones(6, np.float32),
        gt_ego_fut_cmd=np.array([0, 0, 1], np.float32),
        gt_ego_lcf_feat=rng.normal(size=9).astype(np.float32),
        map_vectors=[
            dict(label=k, pts=rng.uniform(-10, 10, (3 + k, 2)).astype(np.float32))
            for k in range(num_vectors)
        ],
    )


def write_drive(root: Path, infos: list[dict], name: str = 'infos.pkl') -> Path:
    """Write records, in disorder, and their images of noise; returns ``root``."""
    rng = np.random.default_rng(0)
    for info in infos:
        for camera in info['cams'].values():
            path = root / camera['data_path'].removeprefix('./data/nuscenes/')
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    content = dict(infos=infos[::-1], metadata=dict(version='v1.0-test'))
    (root / name).write_bytes(pickle.dumps(content))
    return root


@pytest.fixture(scope='session')
def drive_root(tmp_path_factory) -> Path:
    """Three scenes of 4, 3 and 1 frames in ``infos.pkl``."""
    infos = [make_info(scene, f) for scene, frames in enumerate((4, 3, 1)) for f in range(frames)]
    return write_drive(tmp_path_factory.mktemp('drive'), infos)


@pytest.fixture(scope='session')
def drive() -> SimpleNamespace:
    """What makes such drives: ``make_info(scene, frame, ...)``, ``write_drive(root, infos)``."""
    return SimpleNamespace(make_info=make_info, write_drive=write_drive)
