"""The toy drive as nuscenes-devkit reads it, and how it is written."""

import filecmp
import json
import shutil

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.map_expansion.map_api import NuScenesMap
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box, view_points
from nuscenes.utils.splits import mini_train, mini_val
from pyquaternion import Quaternion
from shapely.geometry import Point, Polygon
from shapely.ops import unary_union

from projects.prune_plugin.common.errors import UserError
from projects.vad.datasets.toy import drive as drive_module
from projects.vad.datasets.toy import write_toy
from projects.vad.datasets.toy.place import CANVAS, LOCATION
from projects.vad.datasets.toy.recording import Recording
from projects.vad.datasets.toy.tables import token

SIZE = (320, 180)
ASKED = dict(seed=3, num_scenes=2, num_frames=3, image_size=SIZE, progress=False)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp('toy') / 'drive', **ASKED, workers=1)


@pytest.fixture(scope='module')
def nusc(root):
    return NuScenes('v1.0-mini', str(root), verbose=False)


def ego_pose(nusc, sample, channel='LIDAR_TOP'):
    data = nusc.get('sample_data', sample['data'][channel])
    return nusc.get('ego_pose', data['ego_pose_token'])


def ground(box):
    """Corners (4, 2) of a box's floor."""
    return box.bottom_corners()[:2].T


def test_devkit_reads_every_table(nusc, root):
    assert [len(nusc.scene), len(nusc.sample), len(nusc.sample_data)] == [2, 6, 6 * 7]
    assert len(nusc.category) == 32
    assert [nusc.category[i]['name'] for i in (2, 12, 17, 23)] == [
        'human.pedestrian.adult', 'movable_object.trafficcone', 'vehicle.car', 'vehicle.truck'
    ]  # fmt: skip
    assert nusc.scene[0]['name'] in mini_train and nusc.scene[1]['name'] in mini_val
    for record in nusc.sample_data:
        path = root / record['filename']
        if record['fileformat'] == 'jpg':
            assert cv2.imread(str(path)).shape == (SIZE[1], SIZE[0], 3)
        assert nusc.get('ego_pose', record['ego_pose_token'])['timestamp'] == record['timestamp']
    for sample in nusc.sample:
        assert len(sample['data']) == 7 and len(sample['anns']) > 5


def test_chains_of_samples_and_tracks(nusc):
    for scene in nusc.scene:
        sample, names = nusc.get('sample', scene['first_sample_token']), []
        while True:
            names.append(sample['token'])
            if not sample['next']:
                break
            after = nusc.get('sample', sample['next'])
            assert after['timestamp'] - sample['timestamp'] == 500_000
            assert after['prev'] == sample['token']
            sample = after
        assert names[-1] == scene['last_sample_token'] and len(names) == scene['nbr_samples']
    for instance in nusc.instance:
        row, count = nusc.get('sample_annotation', instance['first_annotation_token']), 1
        assert row['prev'] == ''
        while row['next']:
            after = nusc.get('sample_annotation', row['next'])
            assert after['prev'] == row['token']
            assert after['instance_token'] == instance['token']
            row, count = after, count + 1
        assert row['token'] == instance['last_annotation_token']
        assert count == instance['nbr_annotations']


def test_velocity_and_attributes_agree(nusc):
    moving = token('attribute', 'vehicle.moving')
    parked = token('attribute', 'vehicle.parked')
    seen = 0
    for row in nusc.sample_annotation:
        speed = np.linalg.norm(nusc.box_velocity(row['token'])[:2])
        if parked in row['attribute_tokens'] and np.isfinite(speed):
            assert speed < 1e-6
        seen += moving in row['attribute_tokens'] and speed > 1
    assert seen > 5


def test_lidar_points_lie_in_the_boxes(nusc):
    for sample in nusc.sample[:2]:
        path, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
        cloud = LidarPointCloud.from_file(path)
        assert cloud.points.shape[1] > 3000
        floor = np.median(cloud.points[2][cloud.points[2] < -1.5])
        assert floor == pytest.approx(-1.84, abs=0.05)
        for box in boxes:
            asked = nusc.get('sample_annotation', box.token)['num_lidar_pts']
            box.wlh = box.wlh + 0.12  # the range is noisy, and the ground's points are near
            assert points_in_box(box, cloud.points[:3]).sum() >= asked
            box.wlh = box.wlh - 0.24
            assert points_in_box(box, cloud.points[:3]).sum() == 0


def test_drawn_boxes_are_where_the_devkit_projects_them(root, nusc):
    asked = dict(seed=3, num_scenes=2, num_frames=3, image_size=list(SIZE))
    job = drive_module._jobs(root, asked)[0]
    recording = Recording(job)
    frame, checked = 1, 0
    numbers = {
        token('instance', job.scene, n): (n, agent)
        for n, agent in enumerate(recording.scenario.agents)
    }
    sample = nusc.get('sample', token('sample', job.scene, frame))
    solids, shadows = recording.renderer.frame(frame * 0.5)
    for camera in recording.cameras:
        data = nusc.get('sample_data', sample['data'][camera.channel])
        t = (data['timestamp'] - job.place.utime) / 1e6
        x, y, yaw = recording.scenario.ego.path.at(recording.scenario.ego.motion(t)[0])
        image, owner, seen = recording.renderer.draw(camera.channel, (x, y, yaw), solids, shadows)
        stored = cv2.imread(str(root / data['filename'])).astype(int)
        assert np.abs(stored - image).mean() < 6  # the picture on disk, but for JPEG's loss
        _, boxes, intrinsic = nusc.get_sample_data(data['token'])
        for box in boxes:
            row = nusc.get('sample_annotation', box.token)
            number, _ = numbers[row['instance_token']]
            pixels, full = seen.get(number, (0, 1))
            corners = view_points(box.corners(), intrinsic, normalize=True)[:2]
            inside = (corners.min(1) > 2).all() and (corners.max(1) < np.array(SIZE) - 2).all()
            if box.corners()[2].min() < 0.5 or not inside or pixels < full or pixels < 60:
                continue
            rows, columns = np.nonzero(owner == number)
            x0, y0, x1, y1 = *corners.min(1), *corners.max(1)
            assert x0 - 1.5 < columns.min() and columns.max() < x1 + 1.5, row['category_name']
            assert y0 - 1.5 < rows.min() and rows.max() < y1 + 1.5, row['category_name']
            assert abs(rows.min() - y0) < 2 + 0.25 * (y1 - y0)
            if row['category_name'] in ('vehicle.car', 'vehicle.truck', 'vehicle.bus.rigid'):
                assert abs(columns.min() - x0) < 1.5 and abs(columns.max() - x1) < 1.5
                assert abs(rows.max() - y1) < 1.5 + 0.1 * (y1 - y0)
            checked += 1
    assert checked >= 5


def test_can_bus_agrees_with_the_ego_poses(root, nusc):
    can = NuScenesCanBus(str(root))
    assert can.list_misaligned_routes() == []
    for scene in nusc.scene:
        for name in can.all_messages:
            assert can.get_messages(scene['name'], name)
        poses = can.get_messages(scene['name'], 'pose')
        times = np.array([m['utime'] for m in poses])
        assert np.allclose(np.diff(times), 20_000, atol=2)
        position = np.array([m['pos'] for m in poses])
        speed = np.array([m['vel'][0] for m in poses])
        yaw = np.unwrap([Quaternion(m['orientation']).yaw_pitch_roll[0] for m in poses])
        travelled = np.linalg.norm(np.diff(position, axis=0), axis=1) / 0.02
        assert np.abs(travelled - (speed[1:] + speed[:-1]) / 2).max() < 0.05
        rate = np.array([m['rotation_rate'][2] for m in poses])
        assert np.abs(np.gradient(yaw, 0.02) - rate).max() < 0.05
        gain = np.array([m['accel'][0] for m in poses])
        assert np.abs(speed[0] + np.cumsum(gain) * 0.02 - speed).max() < 0.3
        for sample in (s for s in nusc.sample if s['scene_token'] == scene['token']):
            pose = ego_pose(nusc, sample)
            assert times[0] < sample['timestamp'] < times[-1]
            at = [np.interp(sample['timestamp'], times, position[:, i]) for i in (0, 1)]
            assert np.linalg.norm(np.subtract(at, pose['translation'][:2])) < 0.01
            turn = Quaternion(pose['rotation']).yaw_pitch_roll[0]
            assert np.cos(np.interp(sample['timestamp'], times, yaw) - turn) > 0.99999


def test_the_ego_hits_nobody(nusc):
    for sample in nusc.sample:
        pose = ego_pose(nusc, sample)
        c, s = Quaternion(pose['rotation']).rotation_matrix[:2, 0]
        unit = np.array([[3.44, 0.925], [3.44, -0.925], [-0.64, -0.925], [-0.64, 0.925]])
        ego = Polygon(unit @ np.array([[c, s], [-s, c]]) + pose['translation'][:2])
        for row in sample['anns']:
            assert not ego.intersects(Polygon(ground(nusc.get_box(row))))


def test_map_expansion(root, nusc):
    roads = NuScenesMap(str(root), LOCATION)
    for layer in ('road_divider', 'lane_divider', 'ped_crossing', 'road_segment', 'lane',
                  'drivable_area', 'walkway', 'stop_line', 'lane_connector'):  # fmt: skip
        assert len(getattr(roads, layer)) >= 2, layer
    nodes = np.array([(n['x'], n['y']) for n in roads.node])
    assert (nodes > 0).all() and (nodes < CANVAS).all()
    areas = [
        roads.extract_polygon(record['polygon_token'])
        for layer in ('road_segment', 'lane')
        for record in getattr(roads, layer)
    ]
    assert all(area.is_valid for area in areas)
    union = unary_union(areas)
    assert len(union.geoms) == 2  # one road network per scene, without slits
    assert not any(len(part.interiors) for part in union.geoms)
    for sample in nusc.sample:
        x, y = ego_pose(nusc, sample)['translation'][:2]
        assert union.contains(Point(x, y))
        layers = roads.layers_on_point(x, y)
        assert layers['drivable_area'] and layers['road_segment']
        assert roads.get_closest_lane(x, y, 4)
    lane = next(token for token, link in roads.connectivity.items() if link['outgoing'])
    after = roads.get_outgoing_lane_ids(lane)[0]
    ways = roads.discretize_lanes([lane, after], 1.0)
    assert np.hypot(*np.subtract(ways[lane][-1], ways[after][0])[:2]) < 0.6


def test_same_seed_same_bytes_with_any_number_of_processes(root, tmp_path):
    again = write_toy(tmp_path / 'again', **ASKED, workers=2)
    files = sorted(p.relative_to(root) for p in root.rglob('*') if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob('*') if p.is_file())
    assert filecmp.cmpfiles(root, again, files, shallow=False)[1:] == ([], [])


def test_finished_drive_is_kept_and_others_refused(root, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in root.rglob('*')}
    assert write_toy(root, **ASKED) == root
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob('*')}
    with pytest.raises(UserError, match='other parameters'):
        write_toy(root, **(ASKED | dict(seed=4)))
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(UserError, match='something else'):
        write_toy(tmp_path, **ASKED)


@pytest.mark.parametrize(
    'key, value',
    [('num_scenes', 11), ('num_scenes', 0), ('num_frames', 1), ('num_frames', 41), ('seed', -1),
     ('image_size', (8, 8)), ('image_size', (800,)), ('workers', 0)],
)  # fmt: skip
def test_values_out_of_range_are_named(tmp_path, key, value):
    with pytest.raises(UserError, match=key):
        write_toy(tmp_path / 'drive', **(ASKED | {key: value}))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('workers', [1, 2])
def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch, workers):
    def fail(self, frame):
        raise OSError('disk full')

    monkeypatch.setattr(Recording, '_frame', fail)
    with pytest.raises(OSError, match='disk full'):
        write_toy(tmp_path / 'drive', **ASKED, workers=workers)
    assert not any(tmp_path.iterdir())


def test_an_empty_directory_is_taken(root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        drive_module, '_write', lambda stage, *_: shutil.copytree(root, stage, dirs_exist_ok=True)
    )
    out = write_toy(tmp_path, **ASKED)
    assert json.loads((out / 'toy.json').read_text())['num_scenes'] == 2
