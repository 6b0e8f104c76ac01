"""The data set on made-up records: queues, poses, ground truth, and repeatability."""

import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from projects.prune_plugin.common.errors import DataNotFoundError, UserError
from projects.prune_plugin.training.hooks import EpochSeedHook
from projects.vad.datasets import VADNuScenesDataset
from projects.vad.datasets.frames import (
    ego_can_bus,
    image_path,
    lidar_to_image,
    relative_can_bus,
)
from projects.vad.datasets.nuscenes_dataset import CLASSES, earlier_positions
from projects.vad.datasets.vector_map import MapProvider
from projects.vad.models.data_preprocessor import VADDataPreprocessor

RANGE = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
GT = [
    dict(type='CustomObjectRangeFilter', point_cloud_range=RANGE),
    dict(type='CustomObjectNameFilter', classes=CLASSES),
]
LOAD = dict(type='VADLoadMultiViewImageFromFiles')
DISTORT = dict(type='PhotoMetricDistortionMultiViewImage')
SCALE = dict(type='RandomScaleImageMultiViewImage', scales=[0.4])
PACK = dict(type='PackVADInputs')


def dataset_cfg(root, pipeline=(LOAD, *GT, SCALE, PACK), **kwargs) -> dict:
    kwargs = {'queue_length': 3, 'ann_file': 'infos.pkl', **kwargs}
    return dict(type='VADNuScenesDataset', data_root=str(root), pipeline=list(pipeline), **kwargs)


def build(root, *args, **kwargs) -> VADNuScenesDataset:
    init_default_scope('mmdet3d')
    return DATASETS.build(dataset_cfg(root, *args, **kwargs))


def tokens(item: dict) -> list[str]:
    return [frame['sample_idx'] for frame in item['data_samples'].frames]


def yaw_degrees(frame: int) -> float:
    return math.degrees(0.1 * frame - 0.2) % 360


@pytest.fixture
def training(drive_root):
    np.random.seed(0)
    return build(drive_root)


@pytest.fixture
def testing(drive_root):
    return build(drive_root, test_mode=True)


# ---------------------------------------------------------------------------------- the info file


def test_records_come_by_time_and_know_their_scenes(training):
    assert [training.get_data_info(i)['token'] for i in range(len(training))] == [
        's0f0', 's0f1', 's0f2', 's0f3', 's1f0', 's1f1', 's1f2', 's2f0',
    ]  # fmt: skip
    assert training.scene_tokens == ['scene0'] * 4 + ['scene1'] * 3 + ['scene2']
    assert training.get_subset([0, 5]).scene_tokens == ['scene0', 'scene1']
    assert 'sweeps' not in training.get_data_info(0)


def test_meta_information(training, drive_root):
    meta = training.metainfo
    assert meta['classes'] == CLASSES
    assert meta['map_classes'] == ('divider', 'ped_crossing', 'boundary')
    assert meta['version'] == 'v1.0-test' and meta['data_root'] == str(drive_root)


def test_lazy_and_unserialised(drive_root):
    lazy = build(drive_root, lazy_init=True, test_mode=True)
    assert not lazy.data_list
    plain = build(drive_root, serialize_data=False, test_mode=True)
    assert torch.equal(lazy[2]['inputs']['img'], plain[2]['inputs']['img'])


def test_nothing_there(tmp_path, drive, drive_root):
    with pytest.raises(DataNotFoundError, match='none.pkl'):
        build(drive_root, ann_file='none.pkl')
    root = drive.write_drive(tmp_path, [drive.make_info(0, 0)])
    path = root / 'samples' / 'CAM_FRONT' / 's0f0.png'
    path.unlink()
    with pytest.raises(DataNotFoundError, match=str(path)):
        build(root)


def test_a_missing_image_is_named(tmp_path, drive):
    root = drive.write_drive(tmp_path, [drive.make_info(0, f) for f in range(2)])
    (root / 'samples' / 'CAM_BACK' / 's0f1.png').unlink()
    with pytest.raises(UserError, match='CAM_BACK/s0f1.png'):
        build(root, test_mode=True)[1]


def test_bad_arguments(drive_root, tmp_path, drive):
    with pytest.raises(UserError, match='queue_length=0'):
        build(drive_root, queue_length=0)
    with pytest.raises(UserError, match="map_classes has 'lane'"):
        build(drive_root, map_classes=['lane'])
    with pytest.raises(UserError, match='no records'):
        build(drive.write_drive(tmp_path, []))


# ---------------------------------------------------------------------------------------- a frame


@pytest.mark.parametrize(
    ('stored', 'expected'),
    [
        ('./data/nuscenes/samples/CAM_FRONT/a.jpg', '/root/samples/CAM_FRONT/a.jpg'),
        ('/old/samples/nuscenes/sweeps/CAM_FRONT/a.jpg', '/root/sweeps/CAM_FRONT/a.jpg'),
        ('images/a.jpg', '/root/images/a.jpg'),
        ('/elsewhere/a.jpg', '/elsewhere/a.jpg'),
    ],
)
def test_images_are_looked_for_in_the_data_root(stored, expected):
    assert image_path(stored, '/root') == expected


def test_projection_of_a_point(drive):
    camera = drive.make_info(0, 0)['cams']['CAM_FRONT']
    point = np.array([1.1, 20.7, 1.7, 1.0])  # 1 m right, 20 m ahead, 2 m above the camera
    u, v, depth, _ = lidar_to_image(camera) @ point
    assert depth == pytest.approx(20)
    assert (u / depth, v / depth) == pytest.approx((80 + 120 * 1 / 20, 45 - 120 * 2 / 20))


def test_can_bus_holds_the_pose(drive):
    info = drive.make_info(0, 0)
    before = info['can_bus'].copy()
    values = ego_can_bus(info)
    assert np.array_equal(info['can_bus'], before)
    assert values[:3].tolist() == info['ego2global_translation']
    assert values[3:7].tolist() == pytest.approx(info['ego2global_rotation'])
    assert np.array_equal(values[7:16], before[7:16])
    assert values[-1] == pytest.approx(360 - math.degrees(0.2))
    assert values[-2] == pytest.approx(2 * math.pi - 0.2)


def test_differences_of_a_queue():
    queue = [np.full(18, value) for value in (5.0, 7.0, 4.0)]
    relative = relative_can_bus(queue)
    assert [values[0] for values in relative] == [0, 2, -3]
    assert [values[-1] for values in relative] == [0, 2, -3]
    assert [values[3] for values in relative] == [values[-2] for values in relative] == [5, 7, 4]
    assert queue[0][0] == 5


def test_a_test_item(testing, drive_root, drive):
    item = testing[6]
    sample, info = item['data_samples'], drive.make_info(1, 2)
    assert item['inputs']['img'].shape == (1, 6, 3, 36, 64)
    path = drive_root / 'samples' / 'CAM_FRONT_RIGHT' / 's1f2.png'
    assert sample.img_paths[1] == str(path)
    expected = cv2.resize(cv2.imread(str(path)).astype(np.float32), (64, 36))
    assert np.array_equal(item['inputs']['img'][0, 1].permute(1, 2, 0), expected)
    assert (sample.sample_idx, sample.scene_token, sample.index) == ('s1f2', 'scene1', 6)
    assert sample.fut_valid_flag is False
    frame = sample.frames[0]
    assert frame['can_bus'][:3].tolist() == [106.0, 202.0, 0.5]
    assert frame['can_bus'][-1] == pytest.approx(yaw_degrees(2))
    assert frame['timestamp'] == info['timestamp'] / 1e6
    assert np.allclose(frame['lidar2img'], np.diag([0.4, 0.4, 1, 1]) @ sample.ori_lidar2img)
    assert sample.lidar2ego[:3, 3].tolist() == [0.9, 0.0, 1.8]
    assert np.allclose(sample.lidar2ego[:3, :3], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert sample.ego2global[:3, 3].tolist() == [106.0, 202.0, 0.5]


# --------------------------------------------------------------------------------- ground truth


def test_objects_by_valid_flag_in_training(training, drive):
    truth, info = training[1]['data_samples'].gt_instances_3d, drive.make_info(0, 1)
    assert truth.labels_3d.tolist() == [0, 8, 1]  # not the animal, nor the bus at 16 m
    rows = [0, 1, 3]
    boxes, expected = truth.bboxes_3d.numpy(), info['gt_boxes'][rows]
    assert boxes.shape == (3, 9) and boxes.dtype == np.float32
    assert np.allclose(boxes[:, :2], expected[:, :2], atol=1e-6)
    assert np.allclose(boxes[:, 2], expected[:, 2] - 0.8, atol=1e-6)
    assert np.allclose(boxes[:, 3:7], expected[:, 3:7], atol=1e-6)
    assert np.allclose(boxes[[0, 2], 7:], info['gt_velocity'][[0, 3]], atol=1e-6)
    assert boxes[1, 7:].tolist() == [0, 0]  # not a number in the file
    attributes = truth.attr_labels.numpy()
    assert attributes.shape == (3, 34) and attributes.dtype == np.float32
    assert np.array_equal(attributes[:, :12], info['gt_agent_fut_trajs'][rows])
    assert np.array_equal(attributes[:, 12:18], info['gt_agent_fut_masks'][rows])
    assert attributes[:, 18].tolist() == [9, 9, 9]
    assert np.array_equal(attributes[:, 19:28], info['gt_agent_lcf_feat'][rows])
    assert np.array_equal(attributes[:, 28:], info['gt_agent_fut_yaw'][rows])


def test_objects_by_lidar_points_in_testing(testing, drive_root):
    assert testing[1]['data_samples'].gt_instances_3d.labels_3d.tolist() == [0, 8]
    chosen = build(drive_root, test_mode=True, use_valid_flag=True)
    assert chosen[1]['data_samples'].gt_instances_3d.labels_3d.tolist() == [0, 8, 1]


def test_ego_and_map_truth(testing, drive):
    sample, info = testing[0]['data_samples'], drive.make_info(0, 0)
    assert torch.equal(sample.gt_ego.fut_trajs, torch.from_numpy(info['gt_ego_fut_trajs']))
    shapes = {key: tuple(value.shape) for key, value in sample.gt_ego.items()}
    assert shapes == dict(
        his_trajs=(2, 2), fut_trajs=(6, 2), fut_masks=(6,), fut_cmd=(3,), lcf_feat=(9,)
    )
    lines = sample.gt_map
    assert lines.labels.tolist() == [0, 1, 2]
    assert lines.pts.shape == (3, 20, 2) and lines.bboxes.shape == (3, 4)
    assert lines.shifted_pts.shape == (3, 19, 20, 2)
    ends = np.stack([vector['pts'][[0, -1]] for vector in info['map_vectors']])
    assert np.allclose(lines.pts[:, [0, -1]], ends, atol=1e-5)
    assert isinstance(sample.gt_ego, BaseDataElement)


def test_map_labels_follow_the_map_classes(drive_root):
    dataset = build(drive_root, test_mode=True, map_classes=['boundary', 'divider'])
    assert dataset[0]['data_samples'].gt_map.labels.tolist() == [1, 0]


def test_without_map_vectors_the_map_is_asked(tmp_path, drive, monkeypatch):
    info = drive.make_info(0, 1)
    vectors = info.pop('map_vectors')
    asked = []

    def answer(self, location, lidar2global):
        asked.append((self.data_root, location, lidar2global[:2, 3]))
        return vectors[:2]

    monkeypatch.setattr(MapProvider, 'vectors', answer)
    root = drive.write_drive(tmp_path, [info])
    dataset = build(root, test_mode=True)
    assert dataset[0]['data_samples'].gt_map.labels.tolist() == [0, 1]
    ((data_root, location, position),) = asked
    assert (data_root, location) == (str(root), 'singapore-onenorth')
    ahead = 0.9 * np.array([np.cos(0.1), -np.sin(0.1)])
    assert np.allclose(position, np.array([103, 201]) + ahead)


# ----------------------------------------------------------------------------------------- queues


def test_one_of_the_earlier_positions_is_dropped():
    np.random.seed(0)
    drawn = {tuple(earlier_positions(10, 3)) for _ in range(100)}
    assert drawn == {(9, 8), (9, 7), (8, 7)}
    assert earlier_positions(10, 1) == []
    assert {tuple(earlier_positions(1, 3)) for _ in range(100)} == {(0, 0)}


def test_queues_stay_in_their_scene(training):
    seen = {
        index: {tuple(tokens(training[index])) for _ in range(40)} for index in (0, 1, 3, 4, 6, 7)
    }
    assert seen[0] == {('s0f0',) * 3}
    assert seen[1] == {('s0f0', 's0f0', 's0f1')}
    assert seen[3] == {
        ('s0f1', 's0f2', 's0f3'), ('s0f0', 's0f2', 's0f3'), ('s0f0', 's0f1', 's0f3'),
    }  # fmt: skip
    assert seen[4] == {('s1f0',) * 3}
    assert seen[6] == {
        ('s1f0', 's1f1', 's1f2'), ('s1f1', 's1f1', 's1f2'), ('s1f0', 's1f0', 's1f2'),
    }  # fmt: skip
    assert seen[7] == {('s2f0',) * 3}


def test_a_training_item(training, testing):
    item = training[3]
    frames, order = item['data_samples'].frames, tokens(item)
    assert item['inputs']['img'].shape == (3, 6, 3, 36, 64)
    for position, frame, token in zip(range(3), frames, order, strict=True):
        single = testing[int(token[-1])]
        assert torch.equal(item['inputs']['img'][position], single['inputs']['img'][0])
        absolute = single['data_samples'].frames[0]
        assert np.array_equal(frame['lidar2img'], absolute['lidar2img'])
        assert np.array_equal(frame['can_bus'][3:17], absolute['can_bus'][3:17])
        assert frame['img_shape'] == (36, 64)
    numbers = [int(token[-1]) for token in order]
    steps = np.diff(numbers, prepend=numbers[0])
    for frame, step in zip(frames, steps, strict=True):
        assert frame['can_bus'][:3].tolist() == [3.0 * step, 1.0 * step, 0.0]
    turns = np.diff([yaw_degrees(number) for number in numbers], prepend=yaw_degrees(numbers[0]))
    assert np.allclose([frame['can_bus'][-1] for frame in frames], turns)
    assert item['data_samples'].sample_idx == 's0f3'


def test_copies_share_their_distortion(drive_root):
    np.random.seed(1)
    image = build(drive_root, (LOAD, *GT, SCALE, DISTORT, PACK))[0]['inputs']['img']
    assert torch.equal(image[0], image[1]) and torch.equal(image[1], image[2])


@pytest.mark.parametrize('empty', [dict(num_boxes=0), dict(num_vectors=0)])
def test_training_draws_another_item_for_an_empty_one(tmp_path, drive, empty):
    infos = [drive.make_info(0, 0, **empty), drive.make_info(0, 1)]
    root = drive.write_drive(tmp_path, infos)
    assert tokens(build(root)[0])[-1] == 's0f1'
    assert tokens(build(root, filter_empty_gt=False)[0])[-1] == 's0f0'
    sample = build(root, test_mode=True)[0]['data_samples']
    assert sample.sample_idx == 's0f0'
    objects = 0 if 'num_boxes' in empty else 2
    lines = 0 if 'num_vectors' in empty else 3
    assert sample.gt_instances_3d.bboxes_3d.shape == (objects, 9)
    assert sample.gt_map.shifted_pts.shape == (lines, 19, 20, 2)


# ----------------------------------------------------------------------------------- repeatability


class Recorder(BaseModel):
    """A weight that adds up everything random that it is given."""

    def __init__(self) -> None:
        super().__init__(data_preprocessor=VADDataPreprocessor())
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples, mode):
        images = inputs['img'] if mode == 'loss' else 0
        orders = sum(sample.gt_map.shifted_pts.clamp(min=0).sum() for sample in data_samples)
        bus = sum(float(frame['can_bus'].sum()) for s in data_samples for frame in s.frames)
        return dict(loss=self.weight.sum() * (images.mean() + 1e-3 * orders + 1e-2 * bus))


class StopAfter(Hook):
    """Breaks the training off, as a kill would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            raise KeyboardInterrupt


def run(root, work_dir, num_workers, resume=False, stop=None) -> float:
    hooks = [EpochSeedHook()] + ([dict(type=StopAfter, epoch=stop)] if stop else [])
    runner = Runner(
        model=Recorder(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=dataset_cfg(root, (LOAD, *GT, SCALE, DISTORT, PACK)),
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_size=2,
            num_workers=num_workers,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        custom_hooks=hooks,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=7),
        resume=resume,
        default_scope='mmdet3d',
        experiment_name=f'{work_dir.name}-{num_workers}-{resume}',
    )
    runner.train()
    return runner.model.weight.item()


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_resumed_training_sees_what_an_unbroken_one_sees(drive_root, tmp_path, num_workers):
    unbroken = run(drive_root, tmp_path / 'unbroken', num_workers)
    assert run(drive_root, tmp_path / 'again', num_workers) == unbroken
    with pytest.raises(KeyboardInterrupt):
        run(drive_root, tmp_path / 'broken', num_workers, stop=2)
    torch.manual_seed(99)
    np.random.seed(99)
    assert run(drive_root, tmp_path / 'broken', num_workers, resume=True) == unbroken


def test_items_of_a_test_do_not_depend_on_random_state(testing):
    items = []
    for seed in range(2):
        np.random.seed(seed)
        items.append(testing[5])
    batch = pseudo_collate(items)
    assert torch.equal(*batch['inputs']['img'])
    first, second = (sample.gt_map.shifted_pts for sample in batch['data_samples'])
    assert torch.equal(first, second)
