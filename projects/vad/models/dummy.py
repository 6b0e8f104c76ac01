"""An example input: a rig of cameras all round, with grey images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement


def ring_of_cameras(count: int, height: int, width: int) -> np.ndarray:
    """Projections ``(count, 4, 4)`` of cameras in the LiDAR's place that look all round.

    The first looks forward (+y); each sees 70 degrees.
    """
    focal = width / 2 / math.tan(math.radians(35))
    intrinsic = np.array(
        [[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
    )
    cameras = []
    for yaw in 2 * np.pi * np.arange(count) / count:
        extrinsic = np.eye(4)
        extrinsic[0, :2] = np.cos(yaw), np.sin(yaw)
        extrinsic[1, :3] = 0, 0, -1
        extrinsic[2, :3] = -np.sin(yaw), np.cos(yaw), 0
        cameras.append(intrinsic @ extrinsic)
    return np.stack(cameras)


def dummy_inputs(batch_size: int, input_shape: Sequence[int]) -> dict[str, Any]:
    """Arguments of the model's ``forward``: one frame per sample, each of a scene of its own.

    Args:
        batch_size: Samples.
        input_shape: Cameras, height and width.
    """
    cameras, height, width = input_shape
    frame = dict(
        can_bus=np.zeros(18),
        lidar2img=ring_of_cameras(cameras, height, width),
        img_shape=(height, width),
        timestamp=0.0,  # never later than itself: no history however often it is used
    )
    samples = [
        Det3DDataSample(metainfo=dict(frames=[dict(frame, scene_token=f'dummy {i}')]))
        for i in range(batch_size)
    ]
    for sample in samples:
        sample.gt_ego = BaseDataElement(his_trajs=torch.zeros(2, 2))
    images = torch.zeros(batch_size, 1, cameras, 3, height, width)
    return dict(inputs=dict(img=images), data_samples=samples)
