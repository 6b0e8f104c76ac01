"""The data set on the toy drive, whose records the converter wrote."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

from projects.vad.datasets.infos import load_infos
from projects.vad.datasets.nuscenes_dataset import CLASSES
from projects.vad.models import VADDataPreprocessor
from projects.vad.structures import gravity_center

RANGE = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
PIPELINE = [
    dict(type='VADLoadMultiViewImageFromFiles'),
    dict(type='CustomObjectRangeFilter', point_cloud_range=RANGE),
    dict(type='CustomObjectNameFilter', classes=CLASSES),
    dict(type='RandomScaleImageMultiViewImage', scales=[0.5]),
    dict(type='PhotoMetricDistortionMultiViewImage'),
    dict(type='PackVADInputs'),
]


def build(root, split, ann_file='vad_nuscenes_infos_temporal_{}.pkl', **kwargs):
    init_default_scope('mmdet3d')
    pipeline = [each for each in PIPELINE if split == 'train' or 'Photo' not in each['type']]
    cfg = dict(type='VADNuScenesDataset', data_root=str(root), ann_file=ann_file.format(split))
    return DATASETS.build(dict(cfg, pipeline=pipeline, queue_length=2, **kwargs))


@pytest.fixture(scope='module')
def val(toy_root):
    return build(toy_root, 'val', test_mode=True)


def test_a_training_batch(toy_root):
    np.random.seed(0)
    dataset = build(toy_root, 'train')
    assert len(dataset) == 8 and len(set(dataset.scene_tokens)) == 1
    data = VADDataPreprocessor(mean=[100.0] * 3)(pseudo_collate([dataset[3], dataset[7]]))
    assert data['inputs']['img'].shape == (2, 2, 6, 3, 96, 160)
    assert data['inputs']['img'].isfinite().all() and data['inputs']['img'].std() > 10
    for sample in data['data_samples']:
        assert [frame['img_shape'] for frame in sample.frames] == [(96, 160)] * 2
        boxes = sample.gt_instances_3d.bboxes_3d
        assert len(boxes) and (boxes[:, 0].abs() < 15).all() and (boxes[:, 1].abs() < 30).all()
        assert boxes[:, 2].abs().max() < 4  # the ground is some 1.8 m below the LiDAR
        assert {0, 1, 2} >= set(sample.gt_map.labels.tolist())
        moved = np.linalg.norm(sample.frames[1]['can_bus'][:2])
        assert moved < 2 * 2 * 0.5 * 20


def test_boxes_lie_in_the_pictures_where_the_cameras_see_them(val):
    """Whatever stands within 15 m is in some picture; the front camera sees what is ahead."""
    seen = 0
    for index in range(len(val)):
        sample = val[index]['data_samples']
        centers = gravity_center(sample.gt_instances_3d.bboxes_3d).double().numpy()
        points = np.concatenate([centers, np.ones((len(centers), 1))], axis=1)
        frame = sample.frames[0]
        image = np.einsum('cij,nj->cni', frame['lidar2img'], points)
        depth = image[..., 2]
        u, v = image[..., 0] / depth, image[..., 1] / depth
        height, width = frame['img_shape']
        inside = (depth > 0.5) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        ahead = (centers[:, 1] > 5) & (np.abs(centers[:, 0]) < 2)
        assert inside[0][ahead].all()
        seen += inside.any(axis=0).sum() / max(len(centers), 1)
    assert seen / len(val) > 0.9


def test_ego_poses_agree_with_the_future(val):
    """The planned steps, moved into the world, are the poses of the frames that follow."""
    samples = [val[index]['data_samples'] for index in range(len(val))]
    lidar2global = [sample.ego2global @ sample.lidar2ego for sample in samples]
    first, matrix = samples[0], lidar2global[0]
    steps = first.gt_ego.fut_trajs.double().cumsum(dim=0).numpy()
    assert first.fut_valid_flag and first.gt_ego.fut_masks.all()
    for step, later in zip(steps, lidar2global[1:], strict=False):
        predicted = matrix @ np.array([*step, 0.0, 1.0])
        assert np.allclose(predicted[:2], later[:2, 3], atol=0.02)


def test_map_lines_come_from_the_map_too(toy_root, tmp_path, val):
    """An info file as the original project writes it, without map lines."""
    content = load_infos(toy_root / 'vad_nuscenes_infos_temporal_val.pkl')
    for info in content['infos']:
        del info['map_vectors']
    (tmp_path / 'bare.pkl').write_bytes(pickle.dumps(content))
    bare = build(toy_root, 'val', ann_file=str(tmp_path / 'bare.pkl'), test_mode=True)
    for index in (0, len(val) - 1):
        one, other = val[index]['data_samples'].gt_map, bare[index]['data_samples'].gt_map
        assert one.labels.tolist() == other.labels.tolist()
        assert torch.allclose(one.pts, other.pts, atol=1e-3)


def test_the_drive_may_be_moved(toy_root, tmp_path, val):
    moved = shutil.copytree(toy_root, tmp_path / 'moved')
    sample = build(moved, 'val', test_mode=True)[0]
    assert sample['data_samples'].img_paths[0].startswith(str(moved))
    assert torch.equal(sample['inputs']['img'], val[0]['inputs']['img'])
