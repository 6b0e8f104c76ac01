"""Random batches for detectors of mmdet and mmdet3d, as their data sets give them."""

import math
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

#: Height and width of the images: the fewest places that DINO's 900 queries can be chosen from.
IMAGE = (192, 256)
#: Ground-truth boxes of a sample.
BOXES = 4


def find(cfg: Any, key: str) -> Any:
    """The first value of ``key`` anywhere in a config, depth first; None if there is none."""
    if isinstance(cfg, dict):
        if cfg.get(key) is not None:
            return cfg[key]
        cfg = list(cfg.values())
    found = (find(value, key) for value in cfg) if isinstance(cfg, list | tuple) else ()
    return next((value for value in found if value is not None), None)


def random_boxes(generator: torch.Generator) -> torch.Tensor:
    """Boxes (x1, y1, x2, y2) within the image."""
    height, width = IMAGE
    corners = torch.rand(BOXES, 2, generator=generator) * 0.5
    sizes = 0.2 + torch.rand(BOXES, 2, generator=generator) * 0.25
    return torch.cat([corners, corners + sizes], 1) * torch.tensor([width, height] * 2)


def image_info() -> dict[str, Any]:
    """What the image pipelines say about a sample."""
    return dict(
        img_shape=IMAGE, ori_shape=IMAGE, pad_shape=IMAGE, batch_input_shape=IMAGE,
        scale_factor=(1.0, 1.0), flip=False,
    )  # fmt: skip


def random_image(generator: torch.Generator) -> torch.Tensor:
    """A uint8 image of shape (3, height, width)."""
    return torch.randint(0, 256, (3, *IMAGE), dtype=torch.uint8, generator=generator)


def labels(classes: int, generator: torch.Generator) -> torch.Tensor:
    """A random class for each box."""
    return torch.randint(0, classes, (BOXES,), generator=generator)


def image_sample(cfg: Config, generator: torch.Generator) -> tuple[Any, Any]:
    """An image with boxes: mmdet's ``DetDataSample``."""
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=image_info())
    classes = find(cfg.model, 'num_classes')
    sample.gt_instances = InstanceData(
        bboxes=random_boxes(generator), labels=labels(classes, generator)
    )
    return random_image(generator), sample


def mono3d_sample(cfg: Config, generator: torch.Generator) -> tuple[Any, Any]:
    """An image with boxes in space, before one camera: ``Det3DDataSample``."""
    from mmdet3d.structures import CameraInstance3DBoxes, Det3DDataSample

    focal, (height, width) = 100.0, IMAGE
    camera = [[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    head = cfg.model.bbox_head
    size = find(cfg.model, 'bbox_coder').get('code_size', 7)
    info = dict(image_info(), cam2img=camera, box_type_3d=CameraInstance3DBoxes)
    sample = Det3DDataSample(metainfo=info)
    boxes, depths = random_boxes(generator), 5 + 20 * torch.rand(BOXES, generator=generator)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    places = (centers - torch.tensor([width / 2, height / 2])) / focal * depths[:, None]
    dims = 1 + torch.rand(BOXES, 3, generator=generator)
    yaw = (2 * torch.rand(BOXES, 1, generator=generator) - 1) * math.pi
    speed = torch.zeros(BOXES, size - 7)
    space = torch.cat([places, depths[:, None], dims, yaw, speed], 1)
    space = CameraInstance3DBoxes(space, box_dim=size, origin=(0.5, 0.5, 0.5))
    classes = labels(head.num_classes, generator)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=classes)
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=space, labels_3d=classes, centers_2d=centers, depths=depths,
        attr_labels=torch.zeros(BOXES, dtype=torch.long),
    )  # fmt: skip
    return random_image(generator), sample


def cloud_sample(cfg: Config, generator: torch.Generator) -> tuple[Any, Any]:
    """A point cloud with boxes in it: ``Det3DDataSample``."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

    extent = torch.tensor(find(cfg.model, 'point_cloud_range')).view(2, 3)
    low, span = extent[0], extent[1] - extent[0]
    encoder = cfg.model.get('voxel_encoder') or cfg.model.pts_voxel_encoder
    points = torch.rand(4000, encoder.in_channels, generator=generator)
    points[:, :3] = low + points[:, :3] * span
    sample = Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes))
    places = low + (0.2 + 0.6 * torch.rand(BOXES, 3, generator=generator)) * span
    dims = 1 + 3 * torch.rand(BOXES, 3, generator=generator)
    coder = find(cfg.model, 'bbox_coder')
    size = coder.get('code_size', 7)
    rest = torch.rand(BOXES, size - 6, generator=generator)
    space = LiDARInstance3DBoxes(torch.cat([places, dims, rest], 1), box_dim=size)
    names = cfg.get('class_names')
    sample.gt_instances_3d = InstanceData(bboxes_3d=space, labels_3d=labels(len(names), generator))
    return points, sample


def random_batch(cfg: Config, samples: int = 1, seed: int = 0) -> dict[str, Any]:
    """What a dataloader of the config would give its model's data preprocessor.

    Args:
        cfg: A config of mmdet or mmdet3d.
        samples: Number of samples.
        seed: The same gives the same batch.
    """
    generator = torch.Generator().manual_seed(seed)
    preprocessor = cfg.model.data_preprocessor
    if preprocessor.get('voxel'):
        key, make = 'points', cloud_sample
    elif preprocessor.type == 'Det3DDataPreprocessor':
        key, make = 'img', mono3d_sample
    else:
        key, make = '', image_sample
    inputs, annotated = zip(*(make(cfg, generator) for _ in range(samples)), strict=True)
    return dict(inputs={key: list(inputs)} if key else list(inputs), data_samples=list(annotated))
