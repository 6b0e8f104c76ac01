"""Records from tables: against the original project's, the devkit's geometry, and what is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion
from tiny_nuscenes import SPEED, YAW_RATE, write_tiny_nuscenes

from projects.prune_plugin.common.errors import DataNotFoundError, UserError
from projects.vad.datasets.converter import build_infos, existing_infos, write_infos
from projects.vad.datasets.converter.agents import STATIC, goals
from projects.vad.datasets.converter.can_bus import SceneCan
from projects.vad.datasets.converter.ego import command, history
from projects.vad.datasets.infos import CAMERAS, load_infos
from projects.vad.datasets.vector_map import MapProvider

VERSION = 'v1.0-mini'
FRAMES = 9
ORIGINAL = Path(__file__).parent / 'data/original_infos.npz'


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return write_tiny_nuscenes(tmp_path_factory.mktemp('tiny') / 'root', FRAMES)


@pytest.fixture(scope='module')
def infos(root) -> dict:
    return build_infos(root, root, VERSION, progress=False)


@pytest.fixture(scope='module')
def nusc(root) -> NuScenes:
    return NuScenes(version=VERSION, dataroot=str(root), verbose=False)


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """A folder to damage."""
    return Path(shutil.copytree(root, tmp_path / 'root'))


def test_splits_and_order(infos):
    assert {split: len(found) for split, found in infos.items()} == dict(train=FRAMES, val=FRAMES)
    for found in infos.values():
        assert [info['frame_idx'] for info in found] == list(range(FRAMES))
        assert [info['prev'] for info in found] == ['', *(info['token'] for info in found[:-1])]
        assert [info['next'] for info in found] == [*(info['token'] for info in found[1:]), '']
        assert len({info['scene_token'] for info in found}) == 1
        assert [list(info['cams']) for info in found] == [list(CAMERAS)] * FRAMES
        assert [len(info['sweeps']) for info in found] == list(range(FRAMES))


def test_numbers_are_those_of_the_original_converter(infos):
    """What hustvl/VAD's converter writes for the same tables, for some frames and fields."""
    with np.load(ORIGINAL) as file:
        assert len(file.files) > 200
        for key in file:
            split, frame, *path = key.split('.')
            ours = infos[split][int(frame)]
            for name in path:
                ours = ours[name]
            ours, theirs = np.asarray(ours), file[key]
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, key
            if theirs.dtype.kind == 'U':
                assert (ours == theirs).all(), key
            else:
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6, err_msg=key)


def test_files_are_named_relative_to_the_root(infos, root):
    for info in infos['train']:
        files = [info['lidar_path'], *(camera['data_path'] for camera in info['cams'].values())]
        for name in files:
            assert name.startswith('samples/') and (root / name).is_file()


def test_ego_path_of_a_known_bend(infos):
    """6 m/s, half a second a step; the LiDAR is before the rear axle, so it goes a little faster."""
    radius = SPEED / YAW_RATE
    step = 2 * np.hypot(radius, 0.94) * np.sin(YAW_RATE / 4)
    for split, sign in (('train', -1), ('val', 1)):
        first, last = infos[split][0], infos[split][-1]
        lengths = np.linalg.norm(first['gt_ego_fut_trajs'], axis=1)
        np.testing.assert_allclose(lengths, step, rtol=0.02)
        assert (np.diff(first['gt_ego_fut_trajs'][:, 0]) * sign > 0).all()
        assert first['gt_ego_fut_cmd'].tolist() == ([1, 0, 0] if sign > 0 else [0, 1, 0])
        assert last['gt_ego_fut_cmd'].tolist() == [0, 0, 1]
        np.testing.assert_allclose(
            np.linalg.norm(last['gt_ego_his_trajs'], axis=1), step, rtol=0.02
        )
        np.testing.assert_array_equal(*first['gt_ego_his_trajs'])  # extrapolated


def test_what_lies_beyond_the_end_of_a_scene_is_masked(infos):
    for i, info in enumerate(infos['val']):
        known = min(6, FRAMES - 1 - i)
        assert info['gt_ego_fut_masks'].tolist() == [1] * known + [0] * (6 - known)
        assert not info['gt_ego_fut_trajs'][known:].any()
        assert info['fut_valid_flag'] is (known == 6)
        beyond = info['gt_agent_fut_masks'][:, known:]
        assert not beyond.any() and (info['gt_agent_fut_masks'][:4, :known] == 1).all()


def test_agents_as_the_devkit_sees_them(infos, nusc):
    """Boxes of this frame, and those that follow, moved into this frame's LiDAR by the devkit."""
    for info in infos['train'] + infos['val']:
        sample = nusc.get('sample', info['token'])
        _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
        assert len(boxes) == len(info['gt_boxes']) > 0
        for n, box in enumerate(boxes):
            np.testing.assert_allclose(info['gt_boxes'][n, :3], box.center, atol=1e-9)
            np.testing.assert_allclose(info['gt_boxes'][n, 3:6], box.wlh)
            yaw = -info['gt_boxes'][n, 6] - np.pi / 2
            assert abs(yaw - box.orientation.yaw_pitch_roll[0]) < 1e-9
            here, token = box.center[:2], box.token
            track = info['gt_agent_fut_trajs'][n].reshape(6, 2)
            for t in range(6):
                token = nusc.get('sample_annotation', token)['next'] if token else ''
                assert info['gt_agent_fut_masks'][n, t] == bool(token)
                if token:
                    there = in_lidar(nusc, token, info).center[:2]
                    np.testing.assert_allclose(track[t], there - here, atol=1e-5)
                    here = there


def in_lidar(nusc, token: str, info: dict) -> Box:
    box = nusc.get_box(token)
    for pose in ('ego2global', 'lidar2ego'):
        box.translate(-np.array(info[f'{pose}_translation']))
        box.rotate(Quaternion(info[f'{pose}_rotation']).inverse)
    return box


def test_projection_as_the_devkit_does_it(infos, nusc):
    """A box's centre in pixels: through the LiDAR and our matrices, and through global poses."""
    from nuscenes.utils.geometry_utils import view_points

    info = infos['train'][3]
    seen = 0
    for name in CAMERAS:
        camera = info['cams'][name]
        token = nusc.get('sample', info['token'])['data'][name]
        _, boxes, intrinsic = nusc.get_sample_data(token, box_vis_level=0)
        for box in boxes:
            row = nusc.get('sample', info['token'])['anns'].index(box.token)
            pose = np.eye(4)
            pose[:3, :3] = camera['sensor2lidar_rotation']
            pose[:3, 3] = camera['sensor2lidar_translation']
            local = np.linalg.inv(pose) @ [*info['gt_boxes'][row, :3], 1]
            ours = camera['cam_intrinsic'] @ local[:3]
            if ours[2] > 0.1:
                theirs = view_points(box.center[:, None], intrinsic, normalize=True)[:2, 0]
                np.testing.assert_allclose(ours[:2] / ours[2], theirs, atol=1e-6)
                seen += 1
    assert seen > 3


def test_classes_and_flags(infos):
    names = infos['train'][0]['gt_names']
    expected = ['animal', 'pedestrian', 'car', 'vehicle.emergency.police']
    assert names[:4].tolist() == expected and names.dtype.kind == 'U'
    for info in infos['val']:
        points = info['num_lidar_pts'] + info['num_radar_pts']
        assert info['valid_flag'].tolist() == (points > 0).tolist()
        assert info['gt_agent_lcf_feat'][:4, 8].tolist() == [0, 1, 2, 3]


def test_map_vectors_are_those_of_the_provider(infos, root):
    provider = MapProvider(root)
    for info in (infos['train'][2], infos['val'][5]):
        vectors = info['map_vectors']
        assert {vector['label'] for vector in vectors} == {0, 1, 2}
        bare = {k: v for k, v in info.items() if k != 'map_vectors'}
        for a, b in zip(vectors, provider.of_info(bare), strict=True):
            assert a['label'] == b['label'] and (a['pts'] == b['pts']).all()


def test_goals():
    track = np.zeros((4, 7, 2))
    track[0, :, 0] = np.linspace(0, 7, 7)  # to +x
    track[1, :, 1] = np.linspace(0, 7, 7)  # to +y
    track[2, :, 1] = np.linspace(0, -7, 7)  # to -y: "static", as published files have it
    track[3, :, 0] = np.linspace(0, 1.1, 7)  # 0.92 m after the first step
    assert goals(track).tolist() == [4, 6, STATIC, STATIC]
    assert goals(np.zeros((0, 7, 2))).shape == (0,)


def test_commands():
    assert command(2.0).tolist() == [1, 0, 0] and command(-2.0).tolist() == [0, 1, 0]
    assert command(1.99).tolist() == command(-1.99).tolist() == [0, 0, 1]


def test_history_at_the_start_of_a_scene():
    path = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [6, 0, 0]])
    assert history(path, 3)[:, 0].tolist() == [1, 3, 6]
    assert history(path, 1)[:, 0].tolist() == [-1, 0, 1]
    assert history(path, 0)[:, 0].tolist() == [-2, -1, 0]
    assert history(path[:1], 0)[:, 0].tolist() == [0, 0, 0]


class FakeCan:
    """A CAN bus with some messages of one scene."""

    can_blacklist = [161]

    def __init__(self, folder: Path, scene: str, **messages) -> None:
        self.can_dir = str(folder)
        for kind, rows in messages.items():
            (folder / f'{scene}_{kind}.json').write_text(json.dumps(rows))

    def get_messages(self, scene: str, kind: str) -> list:
        return json.loads((Path(self.can_dir) / f'{scene}_{kind}.json').read_text())


def message(time: int) -> dict:
    x = float(time)
    return dict(
        utime=time, pos=[x] * 3, orientation=[x] * 4, accel=[x] * 3, rotation_rate=[x] * 3,
        vel=[x] * 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    'time, place, motion', [(5, 10, 10), (10, 10, 20), (15, 10, 20), (30, 30, 30), (99, 30, 30)]
)
def test_position_of_the_last_message_motion_of_the_next(tmp_path, time, place, motion):
    pose = [message(t) for t in (10, 20, 30)]
    can = SceneCan(FakeCan(tmp_path, 'scene-0001', pose=pose), 'scene-0001')
    assert can.vector(time).tolist() == [place] * 7 + [motion] * 9 + [0, 0]
    assert can.speed_and_curvature(time, False) is None  # no steering


def test_speed_and_curvature_of_the_nearest(tmp_path):
    steering = [dict(utime=t, value=t / 10) for t in (10, 20, 30)]
    pose = [message(t) for t in (10, 20, 30)]
    bus = FakeCan(tmp_path, 'scene-0001', pose=pose, steeranglefeedback=steering)
    can = SceneCan(bus, 'scene-0001')
    assert can.speed_and_curvature(14, False) == pytest.approx((10, 2 / 2.588))
    assert can.speed_and_curvature(15, True) == pytest.approx((20, -4 / 2.588))
    assert can.speed_and_curvature(99, True) == pytest.approx((30, -6 / 2.588))


@pytest.mark.parametrize('scene', ['scene-0002', 'scene-0161', 'scene-0003'])
def test_scenes_without_can_data_have_zeros(tmp_path, scene):
    bus = FakeCan(tmp_path, 'scene-0161', pose=[message(1)])  # known to be bad
    FakeCan(tmp_path, 'scene-0003', pose=[])
    assert not SceneCan(bus, scene).vector(5).any()


def test_scene_without_can_data_among_others(copy):
    for path in (copy / 'can_bus').glob('scene-0061*'):
        path.unlink()
    infos = build_infos(copy, copy, VERSION, progress=False)
    assert not any(info['can_bus'].any() for info in infos['train'])
    assert all(info['can_bus'].any() for info in infos['val'])
    feature = infos['train'][4]['gt_ego_lcf_feat']
    assert feature[7] == pytest.approx(2 * SPEED * 0.5, rel=0.02) and feature[8] == 0


def test_scene_without_files_is_left_out(copy):
    shutil.rmtree(copy / 'samples/CAM_BACK')
    with pytest.raises(DataNotFoundError, match='files of no scene; unpack the samples there'):
        build_infos(copy, copy, VERSION, progress=False)
    (copy / 'samples/CAM_BACK').mkdir()
    (copy / 'samples/CAM_BACK/scene-0103__0.jpg').touch()
    infos = build_infos(copy, copy, VERSION, progress=False)
    assert not infos['train'] and len(infos['val']) == FRAMES


def test_frame_without_boxes(copy):
    tables = copy / VERSION
    (tables / 'sample_annotation.json').write_text('[]')
    (tables / 'instance.json').write_text('[]')
    write_infos(copy, copy, VERSION, progress=False)
    info = load_infos(copy / 'vad_nuscenes_infos_temporal_train.pkl')['infos'][0]
    shapes = {k: v.shape for k, v in info.items() if k.startswith('gt_') and 'ego' not in k}
    assert shapes == dict(
        gt_boxes=(0, 7), gt_names=(0,), gt_velocity=(0, 2), gt_agent_fut_trajs=(0, 12),
        gt_agent_fut_masks=(0, 6), gt_agent_fut_yaw=(0, 6), gt_agent_fut_goal=(0,),
        gt_agent_lcf_feat=(0, 9),
    )  # fmt: skip


def break_table(root: Path) -> None:
    (root / VERSION / 'sample.json').write_text('[{]')


@pytest.mark.parametrize(
    'damage, message',
    [
        (
            lambda root: shutil.rmtree(root / VERSION),
            'v1.0-mini does not exist; unpack the metadata',
        ),
        (lambda root: (root / VERSION / 'scene.json').unlink(), 'v1.0-mini lacks scene.json'),
        (break_table, 'v1.0-mini cannot be read'),
        (lambda root: shutil.rmtree(root / 'can_bus'), 'holds no folder can_bus'),
        (lambda root: shutil.rmtree(root / 'maps/expansion'), 'the .json files are in .*expansion'),
        (lambda root: (root / 'can_bus/scene-0103_pose.json').write_text('x'), 'is not JSON'),
    ],
    ids=['no tables', 'a table', 'damaged table', 'no can bus', 'no maps', 'damaged can bus'],
)
def test_what_is_missing_is_named_and_nothing_written(copy, damage, message):
    damage(copy)
    before = sorted(copy.rglob('*'))
    with pytest.raises(UserError, match=message):
        write_infos(copy, copy, VERSION, progress=False)
    assert sorted(copy.rglob('*')) == before


def test_unknown_version(root):
    with pytest.raises(UserError, match="'v1.0-test' is none of v1.0-mini, v1.0-trainval"):
        build_infos(root, root, 'v1.0-test')


def test_written_files_hold_the_records(root, infos, tmp_path):
    paths = write_infos(root, root, VERSION, tmp_path, progress=False)
    assert existing_infos(tmp_path) == dict(version=VERSION)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'vad_nuscenes_infos_temporal_train.pkl', 'vad_nuscenes_infos_temporal_val.pkl',
    ]  # fmt: skip
    again = load_infos(paths['val'])['infos']
    for a, b in zip(again, infos['val'], strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_array_equal(a['gt_boxes'], b['gt_boxes'])
    paths['train'].write_bytes(paths['train'].read_bytes()[:-9])
    assert existing_infos(tmp_path) is None
    paths['train'].unlink()
    assert existing_infos(tmp_path) is None
