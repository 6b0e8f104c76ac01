"""One real frame without a data set: six images and a yaml file with their calibration."""

import os
from pathlib import Path

import numpy as np
import torch
import yaml

from projects.prune_plugin.errors import UserError

from ..structures import with_bottom_center
from .frames import make_frame
from .infos import CAMERAS
from .nuscenes_dataset import CLASSES
from .transforms import (
    PackVADInputs,
    RandomScaleImageMultiViewImage,
    VADLoadMultiViewImageFromFiles,
)

ENDINGS = ('.jpg', '.jpeg', '.png')
NEEDED = (
    'cams', 'ego2global_rotation', 'ego2global_translation', 'lidar2ego_rotation',
    'lidar2ego_translation', 'timestamp', 'token', 'scene_token',
)  # fmt: skip
NEEDED_OF_CAMERA = ('cam_intrinsic', 'sensor2lidar_rotation', 'sensor2lidar_translation')


def load_frame(path: str | os.PathLike, scale: float = 0.4) -> dict:
    """One item as the data set's test mode gives it, with boxes if the yaml has some.

    The yaml file holds one record of an info file as BEVDet's demo writes it: ``cams``, poses,
    ``gt_boxes`` (x, y, z of the centre, w, l, h, yaw; LiDAR frame, metres), ``gt_names``,
    ``gt_velocity``. An image is the file beside the yaml that is called like its camera, e.g.
    ``CAM_FRONT.jpg``. No box is left out for its distance. What the CAN bus would say is 0, except
    for the pose; there is no map, no motion, and nothing about the ego's own path.

    Args:
        path: The yaml file, or a folder with one.
        scale: Factor on the images' size.

    Raises:
        UserError: Something is missing or can't be read; it names the file.
    """
    path = find_yaml(Path(path))
    info = read_info(path)
    info['fut_valid_flag'] = False
    info['can_bus'] = np.zeros(18)
    for name, camera in info['cams'].items():
        camera['data_path'] = str(find_image(path.parent, name))
    frame = {**make_frame(info, 0, '/'), **truth(info, path)}
    frame['img_paths'] = [info['cams'][name]['data_path'] for name in CAMERAS]
    for step in (
        VADLoadMultiViewImageFromFiles(),
        RandomScaleImageMultiViewImage([scale]),
        PackVADInputs(),
    ):
        frame = step(frame)
    return frame


def find_yaml(path: Path) -> Path:
    """The yaml file itself, or the one in a folder."""
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f'frame {path} does not exist; give a yaml file or a folder with one')
        return path
    found = sorted([*path.glob('*.yaml'), *path.glob('*.yml')])
    if len(found) != 1:
        raise UserError(f'folder {path} has {len(found)} yaml files; one would be valid')
    return found[0]


def read_info(path: Path) -> dict:
    """The record, with all that a frame can't do without."""
    try:
        info = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'frame {path} cannot be read as yaml: {reason}') from error
    known = info if isinstance(info, dict) else {}
    missing = [key for key in NEEDED if key not in known]
    cams = known.get('cams') if isinstance(known.get('cams'), dict) else {}
    missing += [name for name in CAMERAS if name not in cams and 'cams' not in missing]
    missing += [
        f'{name}.{key}'
        for name, camera in cams.items()
        for key in NEEDED_OF_CAMERA
        if name in CAMERAS and key not in (camera or {})
    ]
    if missing:
        raise UserError(f'frame {path} lacks {", ".join(missing)}')
    return {**info, 'cams': {name: dict(cams[name]) for name in CAMERAS}}


def find_image(folder: Path, camera: str) -> Path:
    """The image of a camera in a folder."""
    for ending in ENDINGS:
        path = folder / f'{camera}{ending}'
        if path.is_file():
            return path.resolve()
    raise UserError(f'folder {folder} lacks {camera}.jpg, the image of that camera')


def truth(info: dict, path: Path) -> dict[str, torch.Tensor]:
    """VAD boxes, labels and empty attributes of the record's boxes; nothing if it has none."""
    if 'gt_boxes' not in info:
        return {}
    names = info.get('gt_names') or []
    boxes = np.asarray(info['gt_boxes'], np.float32).reshape(-1, 7)
    velocity = np.asarray(info.get('gt_velocity', np.zeros((len(boxes), 2))), np.float32)
    if len(names) != len(boxes) or velocity.size != 2 * len(boxes):
        raise UserError(
            f'frame {path} has {len(boxes)} gt_boxes, but {len(names)} gt_names '
            f'and {velocity.size // 2} gt_velocity'
        )
    boxes = np.concatenate([boxes, np.nan_to_num(velocity.reshape(-1, 2))], axis=1)
    known = [i for i, name in enumerate(names) if name in CLASSES]
    return dict(
        gt_bboxes_3d=with_bottom_center(torch.from_numpy(boxes[known])),
        gt_labels_3d=torch.tensor([CLASSES.index(names[i]) for i in known], dtype=torch.long),
        attr_labels=torch.zeros(len(known), 34),
    )
