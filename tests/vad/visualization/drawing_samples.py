"""Made-up rigs, views and samples to draw."""

import cv2
import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement, InstanceData

from projects.vad.datasets.infos import CAMERAS
from projects.vad.visualization import View

CLASSES = ('car', 'truck', 'pedestrian')
MAP_CLASSES = ('divider', 'ped_crossing', 'boundary')
WIDTH, HEIGHT, FOCAL = 320, 180, 160.0
#: Where the cameras look, degrees to the left of straight ahead, in the order of CAMERAS.
YAWS = (0, -60, 60, 180, 120, -120)
GREYS = (40, 70, 100, 130, 160, 190)
INTRINSIC = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])


def rotation(degrees: float) -> np.ndarray:
    """Axes of a level camera (x right, y down, z ahead) in the LiDAR frame (3, 3)."""
    yaw = np.radians(degrees)
    ahead = np.array([-np.sin(yaw), np.cos(yaw), 0])
    right = np.array([np.cos(yaw), np.sin(yaw), 0])
    return np.stack([right, [0, 0, -1.0], ahead], axis=1)


def rig() -> np.ndarray:
    """lidar2img (6, 4, 4) of cameras at the LiDAR's origin."""
    matrices = []
    for yaw in YAWS:
        extrinsic, intrinsic = np.eye(4), np.eye(4)
        extrinsic[:3, :3] = rotation(yaw).T
        intrinsic[:3, :3] = INTRINSIC
        matrices.append(intrinsic @ extrinsic)
    return np.stack(matrices)


def images() -> list[np.ndarray]:
    """Six plain images, each of another grey."""
    return [np.full((HEIGHT, WIDTH, 3), grey, np.uint8) for grey in GREYS]


def box(x: float, y: float, heading: float = 90, size=(2.0, 4.0, 1.6)) -> list[float]:
    """A VAD box on the ground 1.8 m below the LiDAR; ``heading`` in degrees from +x."""
    return [x, y, -1.8, *size, -np.radians(heading) - np.pi / 2, 0.0, 0.0]


def make_view(**kwargs) -> View:
    """A view with nothing in it but what is given."""
    return View(images(), rig(), -1.8, CLASSES, MAP_CLASSES, **kwargs)


def make_sample(folder, predicted: bool = True) -> Det3DDataSample:
    """A sample with two true objects, a map line, paths and, if wanted, predictions."""
    paths = [str(folder / f'{name}.png') for name in CAMERAS]
    for path, image in zip(paths, images(), strict=True):
        cv2.imwrite(path, image)
    meta = dict(
        img_paths=paths,
        ori_lidar2img=rig(),
        lidar2ego=np.array([[0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1.0]]),
        sample_idx='token',
        scene_token='scene',
    )
    sample = Det3DDataSample(metainfo=meta)
    attributes = torch.zeros(2, 34)
    attributes[0, 1:12:2] = 1.0  # a metre ahead each step
    attributes[0, 12:18] = 1
    attributes[1, 12:14] = 1
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=torch.tensor([box(0, 10), box(-6, -8, 0)]),
        labels_3d=torch.tensor([0, 2]),
        attr_labels=attributes,
    )
    line = torch.stack([torch.full((20,), 3.0), torch.linspace(-20, 20, 20)], dim=1)
    sample.gt_map = InstanceData(labels=torch.tensor([2]), pts=line[None])
    step = torch.tensor([0.0, 2.0]).expand(6, 2)
    sample.gt_ego = BaseDataElement(
        fut_trajs=step, fut_masks=torch.ones(6), fut_cmd=torch.tensor([0.0, 1.0, 0.0])
    )
    if predicted:
        sample.pred_instances_3d = InstanceData(
            bboxes_3d=torch.tensor([box(1, 10), box(5, 5), box(0, 20)]),
            scores_3d=torch.tensor([0.4, 0.1, 0.9]),
            labels_3d=torch.tensor([0, 1, 2]),
            trajs_3d=torch.arange(3 * 6 * 12).reshape(3, 6, 12) / 100,
        )
        sample.pred_map = InstanceData(
            labels=torch.tensor([0, 2]),
            scores=torch.tensor([0.2, 0.8]),
            pts=torch.stack([line, line + 1]),
        )
        plans = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, 1.0]])
        sample.pred_ego = BaseDataElement(fut_preds=plans[:, None].expand(3, 6, 2))
    return sample
