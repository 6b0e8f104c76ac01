"""A frame from a YAML file: made up, and the real one where it lies on this machine."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from drawing_samples import HEIGHT, INTRINSIC, WIDTH, YAWS, rotation
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from pyquaternion import Quaternion

from projects.prune_plugin.common.errors import UserError
from projects.vad.datasets.infos import CAMERAS
from projects.vad.datasets.single_frame import load_frame
from projects.vad.structures import gravity_center, heading
from projects.vad.visualization import draw_frame, view_of
from projects.vad.visualization.projection import box_corners, to_camera, to_pixels

FOUND = os.environ.get('NUSCENES_FRAME') or str(
    Path(__file__).resolve().parents[4] / 'shared' / 'data' / 'nuscenes_sample0'
)
CLASSES = ('car', 'pedestrian')
#: Cars of the real frame as an eye sees them: camera; left, top, right, bottom in pixels.
SEEN = (
    ('CAM_BACK', 286, 502, 553, 638),
    ('CAM_BACK', 895, 526, 1345, 900),
    ('CAM_BACK_LEFT', 292, 410, 505, 539),
    ('CAM_BACK_LEFT', 462, 437, 692, 546),
    ('CAM_BACK_LEFT', 755, 437, 912, 531),
)


def record() -> dict:
    """A record as YAML would hold it."""
    cams = {
        name: dict(
            data_path=f'./elsewhere/{name}/picture_{name}.png',
            cam_intrinsic=INTRINSIC.tolist(),
            sensor2lidar_rotation=rotation(yaw).tolist(),
            sensor2lidar_translation=[0.0, 0.0, 0.0],
        )
        for name, yaw in zip(CAMERAS, YAWS, strict=True)
    }
    return dict(
        cams=cams,
        lidar2ego_rotation=[0.7071067811865476, 0.0, 0.0, -0.7071067811865476],
        lidar2ego_translation=[0.9, 0.0, 1.8],
        ego2global_rotation=[1.0, 0.0, 0.0, 0.0],
        ego2global_translation=[100.0, 200.0, 0.0],
        gt_boxes=[[0.0, 10.0, -1.0, 2.0, 4.0, 1.6, 0.3], [1.0, 2.0, -1.0, 1.0, 1.0, 1.0, 0.0]],
        gt_names=['pedestrian', 'unicorn'],
        gt_velocity=[[1.0, 2.0], [float('nan'), 0.0]],
        token='abc',
        timestamp=1_500_000,
    )


@pytest.fixture
def write(tmp_path):
    """Write a record and its images; returns the folder."""

    def write_(content: dict, size=(WIDTH, HEIGHT), name: str = '{}.png') -> Path:
        (tmp_path / 'sample.yaml').write_text(yaml.safe_dump(content))
        for camera in CAMERAS:
            image = np.zeros((size[1], size[0], 3), np.uint8)
            cv2.imwrite(str(tmp_path / name.format(camera)), image)
        return tmp_path

    return write_


def packed(frame: dict, *steps: dict) -> dict:
    """The frame through transforms."""
    init_default_scope('mmdet3d')
    load, pack = dict(type='VADLoadMultiViewImageFromFiles'), dict(type='PackVADInputs')
    return Compose([load, *steps, pack])(frame)


@pytest.mark.parametrize('name', ['{}.png', 'picture_{}.png'])
def test_a_frame_is_what_the_transforms_want(write, name):
    folder = write(record(), name=name)
    for path in (folder, folder / 'sample.yaml'):
        frame = load_frame(path, CLASSES)
        assert frame['sample_idx'] == 'abc' and frame['timestamp'] == 1.5
        assert frame['gt_labels_3d'].tolist() == [1, -1]
        assert frame['gt_bboxes_3d'][0, 2].item() == pytest.approx(-1.8)  # at the bottom
        assert frame['gt_bboxes_3d'][:, 7:].tolist() == [[1, 2], [0, 0]]
    item = packed(frame, dict(type='RandomScaleImageMultiViewImage', scales=[0.5]))
    assert item['inputs']['img'].shape == (1, 6, 3, HEIGHT // 2, WIDTH // 2)
    sample = item['data_samples']
    assert sample.gt_ego.fut_cmd.tolist() == [0, 0, 1] and not sample.gt_ego.fut_masks.any()
    assert sample.frames[0]['can_bus'][:3].tolist() == [100, 200, 0]
    half = np.diag([0.5, 0.5, 1, 1]) @ sample.ori_lidar2img
    np.testing.assert_allclose(sample.frames[0]['lidar2img'], half)
    view = view_of(sample, CLASSES, ('divider', 'ped_crossing', 'boundary'))
    assert view.true_path is None and np.isnan(view.truth.paths[:, :, 1:]).all()


def test_objects_are_optional(write):
    content = {k: v for k, v in record().items() if not k.startswith('gt_')}
    assert len(load_frame(write(content))['gt_bboxes_3d']) == 0


def without(*keys: str) -> dict:
    """The record without an entry."""
    content = record()
    *parents, last = keys
    inner = content
    for key in parents:
        inner = inner[key]
    del inner[last]
    return content


@pytest.mark.parametrize('content, word', [
    ([1, 2], 'holds no record'),
    (without('cams'), 'cams is missing'),
    (without('cams', 'CAM_BACK'), 'cams.CAM_BACK is missing'),
    (without('cams', 'CAM_BACK', 'cam_intrinsic'), 'cams.CAM_BACK lacks cam_intrinsic'),
    (without('lidar2ego_rotation'), r'lidar2ego_rotation must be numbers of the shape \(4,\)'),
    (dict(record(), gt_boxes=[[1, 2, 3]]), 'gt_boxes must be numbers'),
    (dict(record(), gt_boxes='many'), 'gt_boxes'),
    (dict(record(), gt_names=['car']), 'gt_names has 1 entries for 2 gt_boxes'),
    (dict(record(), gt_velocity=[[1, 2]]), 'gt_velocity must be numbers'),
])  # fmt: skip
def test_a_bad_record_is_named(write, content, word):
    with pytest.raises(UserError, match=word):
        load_frame(write(content))


def test_bad_files_are_named(write, tmp_path):
    with pytest.raises(UserError, match='gone does not exist'):
        load_frame(tmp_path / 'gone')
    with pytest.raises(UserError, match='0 YAML files'):
        load_frame(tmp_path)
    with pytest.raises(UserError, match=r'640 x 360 pixels, but cam_intrinsic of CAM_FRONT'):
        load_frame(write(record(), size=(640, 360)))
    write(record())
    (tmp_path / 'CAM_BACK_LEFT.png').unlink()
    with pytest.raises(UserError, match='lacks the image of CAM_BACK_LEFT'):
        load_frame(tmp_path)
    (tmp_path / 'sample.yaml').write_text('!!python/object/apply:os.getcwd []')
    with pytest.raises(UserError, match='can not be read as YAML'):
        load_frame(tmp_path)


@pytest.fixture(scope='module')
def real() -> tuple[dict, dict]:
    """The real frame, and its file's content."""
    if not Path(FOUND).is_dir():
        pytest.skip('the real frame is not on this machine')
    return load_frame(FOUND), yaml.safe_load(next(Path(FOUND).glob('*.yaml')).read_text())


def test_the_real_boxes_agree_with_those_in_the_ego_frame(real):
    """The file holds every box twice, in two frames and two conventions."""
    frame, content = real
    boxes = frame['gt_bboxes_3d'].double()
    others, labels = (np.array(x) for x in content['ann_infos'])
    rotation_ = Quaternion(content['lidar2ego_rotation']).rotation_matrix
    centers = gravity_center(boxes).numpy() @ rotation_.T + content['lidar2ego_translation']
    np.testing.assert_allclose(centers, others[:, :3], atol=0.03)
    np.testing.assert_allclose(boxes[:, [4, 3, 5]], others[:, 3:6], atol=1e-3)
    turn = others[:, 6] - (heading(boxes).numpy() - np.pi / 2)
    np.testing.assert_allclose(np.sin(turn), 0, atol=0.03)
    np.testing.assert_allclose(np.cos(turn), 1, atol=0.03)
    assert frame['gt_labels_3d'].tolist() == labels.tolist()


def test_the_real_boxes_lie_on_the_cars(real):
    """Each car's outline is met by one box's: intersection over union."""
    frame, _ = real
    corners = box_corners(frame['gt_bboxes_3d'].numpy())
    for camera, *seen in SEEN:
        matrix = frame['ori_lidar2img'][CAMERAS.index(camera)]
        points = to_camera(corners, matrix)
        ahead = points[..., 2].min(axis=1) > 0.2
        pixels = to_pixels(points[ahead])
        low, high = (x.clip(0, (1600, 900)) for x in (pixels.min(axis=1), pixels.max(axis=1)))
        overlap = np.minimum(high, seen[2:]) - np.maximum(low, seen[:2])
        inside = np.prod(overlap.clip(0), axis=1)
        areas = np.prod(high - low, axis=1) + np.prod(np.subtract(seen[2:], seen[:2]))
        assert (inside / (areas - inside)).max() > 0.7, (camera, seen)


def test_the_real_frame_becomes_a_picture(real):
    sample = packed(dict(real[0]))['data_samples']
    assert isinstance(sample.gt_instances_3d.bboxes_3d, torch.Tensor)
    names = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle',
             'bicycle', 'pedestrian', 'traffic_cone')  # fmt: skip
    image = draw_frame(view_of(sample, names, ('divider', 'ped_crossing', 'boundary')))
    assert image.shape[0] > 600
