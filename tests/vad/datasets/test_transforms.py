"""Transforms of one frame, against definitions written out here."""

import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS
from mmengine.registry.utils import init_default_scope

from projects.prune_plugin.common.errors import UserError
from projects.vad.datasets.transforms import (
    CustomObjectNameFilter,
    CustomObjectRangeFilter,
    PackVADInputs,
    PhotoMetricDistortionMultiViewImage,
    RandomScaleImageMultiViewImage,
    VADLoadMultiViewImageFromFiles,
)
from projects.vad.datasets.transforms.pack import stack_images

RANGE = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]


def noise(height=90, width=160, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def objects(x, y=0.0, yaw=0.0, labels=None) -> dict:
    x = torch.as_tensor(x, dtype=torch.float32)
    boxes = torch.zeros(len(x), 9)
    boxes[:, 0], boxes[:, 1], boxes[:, 6] = x, torch.as_tensor(y), torch.as_tensor(yaw)
    labels = torch.arange(len(x)) if labels is None else torch.tensor(labels)
    return dict(
        gt_bboxes_3d=boxes, gt_labels_3d=labels, attr_labels=torch.arange(len(x)).float()[:, None]
    )


@pytest.mark.parametrize(
    'name',
    [
        'CustomObjectNameFilter',
        'CustomObjectRangeFilter',
        'PackVADInputs',
        'PhotoMetricDistortionMultiViewImage',
        'RandomScaleImageMultiViewImage',
        'VADLoadMultiViewImageFromFiles',
    ],
)
def test_they_are_found_from_the_scope_of_the_configs(name):
    init_default_scope('mmdet3d')
    with TRANSFORMS.switch_scope_and_registry(None) as registry:
        assert registry.get(name).__module__.startswith('projects.vad.')


def test_loading_gives_bgr_floats(tmp_path):
    image = noise()
    paths = [str(tmp_path / f'{i}.png') for i in range(2)]
    for path in paths:
        cv2.imwrite(path, image)
    loaded = VADLoadMultiViewImageFromFiles()(dict(img_paths=paths))['img']
    assert len(loaded) == 2 and loaded[0].dtype == np.float32
    assert np.array_equal(loaded[1], image)


@pytest.mark.parametrize('content', [None, b'', b'no image'])
def test_an_image_that_can_not_be_loaded_is_named(tmp_path, content):
    path = tmp_path / 'CAM_FRONT.jpg'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match='CAM_FRONT.jpg'):
        VADLoadMultiViewImageFromFiles()(dict(img_paths=[str(path)]))


def test_points_project_to_the_same_spot_of_the_smaller_image():
    projection = np.random.default_rng(0).normal(size=(6, 4, 4))
    given = projection.copy()
    results = dict(img=[noise(90, 161).astype(np.float32)], lidar2img=projection)
    results = RandomScaleImageMultiViewImage(scales=[0.4])(results)
    assert results['img'][0].shape == (36, 64, 3)
    assert np.array_equal(projection, given)
    point = np.array([3.0, 5.0, 1.0, 1.0])
    before, after = projection @ point, results['lidar2img'] @ point
    assert np.allclose(after[:, :2], 0.4 * before[:, :2]) and np.allclose(
        after[:, 2:], before[:, 2:]
    )


def test_scale_one_changes_nothing():
    image = noise().astype(np.float32)
    results = dict(img=[image], lidar2img=np.eye(4)[None])
    results = RandomScaleImageMultiViewImage(scales=[1.0])(results)
    assert results['img'][0] is image and np.array_equal(results['lidar2img'], np.eye(4)[None])


@pytest.mark.parametrize('scales', [[], [0.0], [0.5, -1.0]])
def test_bad_scales_are_refused(scales):
    with pytest.raises(UserError, match='scales='):
        RandomScaleImageMultiViewImage(scales=scales)


def plain_distortion(image, delta, contrast, first, saturation, hue, order):
    """The steps one after the other, colours by formula (hue in degrees, as in colorsys)."""
    image = image.astype(np.float64) + delta
    image = image * contrast if first else image
    blue, green, red = np.moveaxis(image, -1, 0)
    high, low = image.max(-1), image.min(-1)
    spread = np.where(high > low, high - low, 1)
    angle = np.select(
        [high == red, high == green],
        [60 * (green - blue) / spread, 120 + 60 * (blue - red) / spread],
        240 + 60 * (red - green) / spread,
    )
    angle = (angle + hue) % 360
    chroma = np.where(high > low, (high - low) / high, 0) * saturation * high
    steps = (angle[..., None] / 60 + np.array([1, 3, 5])) % 6  # blue, green, red
    ramp = np.clip(np.minimum(steps, 4 - steps), 0, 1)
    image = high[..., None] - chroma[..., None] * ramp
    image = image if first else image * contrast
    return image[..., order]


@pytest.mark.parametrize('seed', range(12))
def test_distortion_is_that_of_its_steps(seed, monkeypatch):
    """Draws are recorded and the steps done again in double precision."""
    image = noise(seed=seed).astype(np.float32) + 40  # stays above 0, where hues are defined
    drawn = []
    real = np.random.uniform
    monkeypatch.setattr(
        np.random, 'uniform', lambda a, b: drawn.append((a, real(a, b))) or drawn[-1][1]
    )
    coins = []
    flip = np.random.randint
    monkeypatch.setattr(np.random, 'randint', lambda n: coins.append(flip(n)) or coins[-1])
    orders = []
    permute = np.random.permutation
    monkeypatch.setattr(np.random, 'permutation', lambda n: orders.append(permute(n)) or orders[-1])
    np.random.seed(seed)
    out = PhotoMetricDistortionMultiViewImage()(dict(img=[image.copy()]))['img'][0]

    values = iter(value for _, value in drawn)
    bright, contrast, first, saturate, turn, swap = coins
    expected = plain_distortion(
        image,
        delta=next(values) if bright else 0,
        contrast=next(values) if contrast else 1,
        first=first,
        saturation=next(values) if saturate else 1,
        hue=next(values) if turn else 0,
        order=orders[0] if swap else [0, 1, 2],
    )
    assert out.dtype == np.float32
    assert np.abs(out - expected).max() < 0.01


def test_distortion_varies_over_cameras_and_follows_the_seed():
    images = [noise().astype(np.float32) for _ in range(6)]
    distort = PhotoMetricDistortionMultiViewImage()
    runs = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        runs.append(np.stack(distort(dict(img=[image.copy() for image in images]))['img']))
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])
    assert len({image.tobytes() for image in runs[0]}) > 3


def test_range_filter_keeps_open_interval_and_wraps_yaw():
    results = objects(
        x=[0, 15, 14.9, -15, -14.9, 0, 0],
        y=[0, 0, 29.9, 0, -29.9, 30, -31],
        yaw=[-4.0, 0, 3.0, 0, 4.0, 0, 0],
    )
    kept = CustomObjectRangeFilter(RANGE)(results)
    assert kept['gt_labels_3d'].tolist() == [0, 2, 4]
    assert kept['attr_labels'].flatten().tolist() == [0, 2, 4]
    expected = [2 * math.pi - 4, 3.0, 4 - 2 * math.pi]
    assert kept['gt_bboxes_3d'][:, 6].tolist() == pytest.approx(expected, abs=1e-6)


def test_name_filter_drops_other_classes():
    results = CustomObjectNameFilter(['a', 'b'])(objects([0, 1, 2, 3], labels=[1, -1, 0, 2]))
    assert results['gt_labels_3d'].tolist() == [1, 0]
    assert results['gt_bboxes_3d'][:, 0].tolist() == [0, 2]


def test_filters_leave_frames_without_truth_alone():
    assert CustomObjectRangeFilter(RANGE)({}) == {}
    assert CustomObjectNameFilter(['a'])({}) == {}


def test_all_objects_may_be_filtered():
    results = CustomObjectRangeFilter(RANGE)(objects([50.0, 60.0]))
    assert results['gt_bboxes_3d'].shape == (0, 9)
    results = CustomObjectNameFilter(['a'])(results)
    assert results['attr_labels'].shape == (0, 1)


def test_images_of_a_frame_become_one_tensor():
    images = [noise(seed=i).astype(np.float32) for i in range(6)]
    stacked = stack_images(images)
    assert stacked.shape == (6, 3, 90, 160) and stacked.is_contiguous()
    assert all(np.array_equal(stacked[i].permute(1, 2, 0), images[i]) for i in range(6))


def test_images_of_two_sizes_are_refused():
    with pytest.raises(UserError, match=r'\(90, 160\)'):
        stack_images([noise(), noise(80)])


def test_packing_a_frame_without_truth():
    frame = dict(
        img=[noise().astype(np.float32)] * 6,
        lidar2img=np.zeros((6, 4, 4)),
        ori_lidar2img=np.ones((6, 4, 4)),
        can_bus=np.zeros(18),
        ego2global=np.eye(4),
        lidar2ego=np.eye(4),
        timestamp=1.5,
        sample_idx='token',
        scene_token='scene',
        index=3,
        fut_valid_flag=True,
        img_paths=['a.jpg'] * 6,
    )
    packed = PackVADInputs()(frame)
    sample = packed['data_samples']
    assert packed['inputs']['img'].shape == (1, 6, 3, 90, 160)
    assert sample.keys() == []
    assert set(sample.metainfo) == {
        'frames', 'sample_idx', 'scene_token', 'index', 'ego2global', 'lidar2ego', 'img_paths',
        'ori_lidar2img', 'fut_valid_flag',
    }  # fmt: skip
    assert set(sample.frames[0]) == {
        'can_bus', 'lidar2img', 'img_shape', 'scene_token', 'sample_idx', 'timestamp',
    }  # fmt: skip
    assert sample.frames[0]['img_shape'] == (90, 160)
