"""A single frame from a YAML file and six images: a demo without nuScenes' tables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from projects.prune_plugin.common.errors import UserError

from .frames import ATTRIBUTE_KEYS, ego_truth, make_frame, object_truth
from .infos import CAMERA_REQUIRED, CAMERAS
from .nuscenes_dataset import CLASSES
from .vector_map import build_map_targets

#: Arrays of a frame and of a camera, and their shapes.
SHAPES = dict(
    lidar2ego_rotation=(4,),
    lidar2ego_translation=(3,),
    ego2global_rotation=(4,),
    ego2global_translation=(3,),
)
CAMERA_SHAPES = dict(
    cam_intrinsic=(3, 3), sensor2lidar_rotation=(3, 3), sensor2lidar_translation=(3,)
)
#: What a record of an info file has for each object's future.
WIDTHS = dict(fut_trajs=12, fut_masks=6, fut_goal=1, lcf_feat=9, fut_yaw=6)


def load_frame(path: str | os.PathLike, classes: tuple[str, ...] = CLASSES) -> dict[str, Any]:
    """One frame as the transforms want it, with what its file says about objects.

    The file is a record of an info file written as YAML: ``cams``, ``lidar2ego_*``,
    ``ego2global_*`` and, if objects are known, ``gt_boxes`` (LiDAR frame; x, y, z of the centre, w,
    l, h, yaw as in info files), ``gt_names`` and ``gt_velocity``. The images lie beside it, each
    called as its camera or as in ``data_path``. There is no past, no future and no map: paths are
    masked out and the command is to go straight.

    Args:
        path: The YAML file, or a folder with one.
        classes: Names in the order of the objects' labels.

    Returns:
        As ``frames.make_frame``, with ``gt_bboxes_3d``, ``gt_labels_3d``, ``attr_labels``,
        ``gt_ego`` and ``gt_map``.

    Raises:
        UserError: The file or an image is missing, or the file lacks something.
    """
    file = find_file(Path(path))
    record = read_yaml(file)
    check(record, file)
    for name in CAMERAS:
        record['cams'][name]['data_path'] = str(find_image(file, name, record['cams'][name]))
    info = complete(record, file)
    return dict(
        make_frame(info, 0, str(file.parent)),
        **object_truth(info, classes, use_valid_flag=False),
        gt_ego=ego_truth(info),
        gt_map=build_map_targets([]),
        map_vectors=[],
    )


def find_file(path: Path) -> Path:
    """The YAML file that ``path`` is, or the one in the folder that it is."""
    if path.is_file():
        return path.resolve()
    if not path.is_dir():
        raise UserError(f'--frame {path} does not exist; name a folder with a YAML file, or one')
    found = sorted(p for p in path.iterdir() if p.suffix in ('.yaml', '.yml'))
    if len(found) != 1:
        raise UserError(
            f'--frame {path} has {len(found)} YAML files; name one of a folder with one'
        )
    return found[0].resolve()


def read_yaml(file: Path) -> dict[str, Any]:
    """The file's content, read without building anything that it may name."""
    try:
        content = yaml.safe_load(file.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'{file} can not be read as YAML: {reason}') from error
    if not isinstance(content, dict):
        raise UserError(f'{file} holds no record; a mapping with cams and poses would be valid')
    return content


def check(record: Mapping[str, Any], file: Path) -> None:
    """Refuse a record that lacks poses or cameras, or has them in other shapes."""
    cams = record.get('cams')
    if not isinstance(cams, Mapping):
        raise UserError(f'{file}: cams is missing; a mapping with {", ".join(CAMERAS)} is valid')
    for key, shape in SHAPES.items():
        array(record, key, shape, file)
    for name in CAMERAS:
        if not isinstance(cams.get(name), Mapping):
            raise UserError(f'{file}: cams.{name} is missing; {", ".join(CAMERAS)} are needed')
        missing = CAMERA_REQUIRED - {'data_path'} - cams[name].keys()
        if missing:
            raise UserError(f'{file}: cams.{name} lacks {", ".join(sorted(missing))}')
        for key, shape in CAMERA_SHAPES.items():
            array(cams[name], key, shape, file, f'cams.{name}.')


def array(
    record: Mapping[str, Any], key: str, shape: tuple[int, ...], file: Path, where: str = ''
) -> np.ndarray:
    """``record[key]`` as numbers of a shape, in which -1 stands for any length."""
    try:
        values = np.array(record[key], dtype=np.float64)
        fits = values.ndim == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, values.shape, strict=True)
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f'{file}: {where}{key} must be numbers of the shape {shape}, -1 for any')
    return values


def find_image(file: Path, name: str, camera: Mapping[str, Any]) -> Path:
    """A camera's image: beside the file, or where ``data_path`` says."""
    folder, given = file.parent, str(camera.get('data_path', ''))
    candidates = [folder / f'{name}{ending}' for ending in ('.jpg', '.jpeg', '.png')]
    if given:
        candidates += [folder / Path(given).name, folder / given]
    for path in candidates:
        if path.is_file():
            check_size(path, name, camera)
            return path
    raise UserError(f'{folder} lacks the image of {name}; {candidates[0].name} would be valid')


def check_size(path: Path, name: str, camera: Mapping[str, Any]) -> None:
    """Refuse an image for which ``cam_intrinsic`` is not made: its centre must be near that."""
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f'image {path} can not be decoded')
    height, width = image.shape[:2]
    x, y = np.asarray(camera['cam_intrinsic'], float)[:2, 2]
    if not (width / 3 < x < width / 1.5 and height / 3 < y < height / 1.5):
        raise UserError(
            f'image {path} has {width} x {height} pixels, but cam_intrinsic of {name} puts its '
            f'centre at ({x:.0f}, {y:.0f}); give images of the size that it was measured for'
        )


def complete(record: dict[str, Any], file: Path) -> dict[str, Any]:
    """A record of an info file, with all that the YAML file has no word on set to nothing."""
    count = len(record.get('gt_boxes') or [])
    boxes = array(record, 'gt_boxes', (-1, 7), file) if count else np.zeros((0, 7))
    names = [str(name) for name in record.get('gt_names') or []]
    if len(names) != count:
        raise UserError(f'{file}: gt_names has {len(names)} entries for {count} gt_boxes')
    velocity, points = np.zeros((count, 2)), np.ones(count, dtype=int)
    if count and 'gt_velocity' in record:
        velocity = array(record, 'gt_velocity', (count, 2), file)
    if count and 'num_lidar_pts' in record:
        points = array(record, 'num_lidar_pts', (count,), file)
    future = {f'gt_agent_{key}': np.zeros((count, WIDTHS[key])) for key in ATTRIBUTE_KEYS}
    return dict(
        token=str(record.get('token', file.stem)),
        scene_token=str(record.get('scene_token', '')),
        timestamp=float(record.get('timestamp', 0)),
        fut_valid_flag=False,
        can_bus=np.zeros(18),
        cams=record['cams'],
        **{key: record[key] for key in SHAPES},
        gt_boxes=boxes,
        gt_names=np.array(names, dtype=str),
        gt_velocity=velocity,
        num_lidar_pts=points,
        valid_flag=points > 0,
        **future,
        gt_ego_his_trajs=np.zeros((2, 2)),
        gt_ego_fut_trajs=np.zeros((6, 2)),
        gt_ego_fut_masks=np.zeros(6),
        gt_ego_fut_cmd=np.array([0, 0, 1]),
        gt_ego_lcf_feat=np.zeros(9),
    )
