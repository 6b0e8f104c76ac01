"""One info record as the transforms want it: poses, cameras, CAN bus, ground truth."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from pyquaternion import Quaternion
from torch import Tensor

from ..structures import with_bottom_center
from .infos import CAMERAS

EGO_KEYS = ('his_trajs', 'fut_trajs', 'fut_masks', 'fut_cmd', 'lcf_feat')
ATTRIBUTE_KEYS = ('fut_trajs', 'fut_masks', 'fut_goal', 'lcf_feat', 'fut_yaw')


def make_frame(info: dict, index: int, data_root: str) -> dict:
    """What is known of a frame without its ground truth; arrays are new ones.

    Args:
        info: A record of an info file, see ``infos``.
        index: Its position in the data set.
        data_root: Where ``samples/`` and ``sweeps/`` lie.

    Returns:
        ``img_paths`` (list of N), ``lidar2img`` and ``ori_lidar2img`` (N, 4, 4), ``can_bus`` (18,),
        ``ego2global`` and ``lidar2ego`` (4, 4), ``timestamp`` in seconds, ``sample_idx`` (the
        token), ``scene_token``, ``index``, ``fut_valid_flag``.
    """
    cameras = [info['cams'][name] for name in CAMERAS]
    projections = np.stack([lidar_to_image(camera) for camera in cameras])
    return dict(
        img_paths=[image_path(camera['data_path'], data_root) for camera in cameras],
        lidar2img=projections,
        ori_lidar2img=projections.copy(),
        can_bus=ego_can_bus(info),
        ego2global=pose(info['ego2global_rotation'], info['ego2global_translation']),
        lidar2ego=pose(info['lidar2ego_rotation'], info['lidar2ego_translation']),
        timestamp=info['timestamp'] / 1e6,
        sample_idx=info['token'],
        scene_token=info['scene_token'],
        index=index,
        fut_valid_flag=bool(info['fut_valid_flag']),
    )


def image_path(path: str, data_root: str) -> str:
    """Where an image lies now, whatever folder the info file was made in.

    The part from the last ``samples/`` or ``sweeps/`` on is looked for in ``data_root``; a path
    without such a part is taken relative to ``data_root``, or as it is if absolute.
    """
    parts = PurePosixPath(path).parts
    starts = [i for i, part in enumerate(parts[:-1]) if part in ('samples', 'sweeps')]
    return str(Path(data_root, *(parts[starts[-1] :] if starts else parts)))


def pose(rotation: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """``(4, 4)`` float64 matrix of a quaternion (w, x, y, z) and a translation in metres."""
    matrix = np.eye(4)
    matrix[:3, :3] = Quaternion(rotation).rotation_matrix
    matrix[:3, 3] = translation
    return matrix


def lidar_to_image(camera: dict) -> np.ndarray:
    """``(4, 4)`` matrix from LiDAR metres to ``(u * depth, v * depth, depth, 1)`` in pixels."""
    sensor2lidar = np.eye(4)
    sensor2lidar[:3, :3] = camera['sensor2lidar_rotation']
    sensor2lidar[:3, 3] = camera['sensor2lidar_translation']
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = camera['cam_intrinsic']
    return intrinsic @ np.linalg.inv(sensor2lidar)


def ego_can_bus(info: dict) -> np.ndarray:
    """The record's CAN bus values ``(18,)`` with the pose of the ego vehicle written over them.

    ``[:3]`` global position, ``[3:7]`` quaternion (w, x, y, z), ``[-2]`` and ``[-1]`` yaw in
    radians and in degrees, both in [0, 360) degrees.
    """
    rotation = Quaternion(info['ego2global_rotation'])
    forward = rotation.rotation_matrix[:, 0]
    degrees = math.atan2(forward[1], forward[0]) / math.pi * 180
    if degrees < 0:
        degrees += 360
    can_bus = np.array(info['can_bus'], dtype=np.float64)
    can_bus[:3] = info['ego2global_translation']
    can_bus[3:7] = rotation.elements
    can_bus[-2:] = degrees / 180 * math.pi, degrees
    return can_bus


def relative_can_bus(queue: Sequence[np.ndarray]) -> list[np.ndarray]:
    """CAN bus values of a queue, oldest first, with position and yaw (degrees) as differences.

    ``[:3]`` and ``[-1]`` count from the frame before and are 0 for the first; others stay.
    """
    relative = [values.copy() for values in queue]
    for values, previous in zip(relative, [queue[0], *queue[:-1]], strict=True):
        values[:3] -= previous[:3]
        values[-1] -= previous[-1]
    return relative


def object_truth(info: dict, classes: Sequence[str], use_valid_flag: bool) -> dict[str, Tensor]:
    """Boxes, labels and attributes of a frame's objects that are seen at all.

    Args:
        info: A record of an info file.
        classes: Names in the order of their labels; others get the label -1.
        use_valid_flag: Keep objects by ``valid_flag``, else those with LiDAR points.

    Returns:
        ``gt_bboxes_3d`` (n, 9) VAD boxes, ``gt_labels_3d`` (n,), ``attr_labels`` (n, 34).
    """
    seen = np.asarray(info['valid_flag'] if use_valid_flag else info['num_lidar_pts'] > 0, bool)
    velocity = np.asarray(info['gt_velocity'], np.float64).reshape(-1, 2)[seen]
    velocity = np.where(np.isnan(velocity).any(axis=1, keepdims=True), 0.0, velocity)
    boxes = np.asarray(info['gt_boxes'], np.float64).reshape(-1, 7)[seen]
    boxes = np.concatenate([boxes, velocity], axis=1).astype(np.float32)
    columns = [np.asarray(info[f'gt_agent_{key}'])[seen] for key in ATTRIBUTE_KEYS]
    attributes = [column[:, None] if column.ndim == 1 else column for column in columns]
    labels = {name: label for label, name in enumerate(classes)}
    names = np.asarray(info['gt_names'])[seen].tolist()
    return dict(
        gt_bboxes_3d=with_bottom_center(torch.from_numpy(boxes)),
        gt_labels_3d=torch.tensor([labels.get(name, -1) for name in names], dtype=torch.long),
        attr_labels=torch.from_numpy(np.concatenate(attributes, axis=1).astype(np.float32)),
    )


def ego_truth(info: dict) -> dict[str, Tensor]:
    """The ego vehicle's past, future, command and state as float tensors."""
    return {
        key: torch.from_numpy(np.array(info[f'gt_ego_{key}'], dtype=np.float32)) for key in EGO_KEYS
    }
