"""Map elements: cut out of the map, and sampled, against the original project and brute force."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pyquaternion import Quaternion
from shapely import LinearRing, LineString, MultiLineString, Point
from tiny_nuscenes import ORIGIN, write_tiny_nuscenes

from projects.prune_plugin.common.errors import DataNotFoundError, UserError
from projects.vad.datasets.vector_map import (
    SHIFT_PATTERNS,
    MapLayers,
    MapProvider,
    build_map_targets,
    extract,
    fixed_points,
)
from projects.vad.datasets.vector_map.extract import lines_of

HERE = Path(__file__).parent
REFERENCE = Path(os.environ.get('VAD_REFERENCE') or HERE.parents[3] / 'shared' / 'vad')
PATCH = (60.0, 30.0)
#: A closed line of more vertices than v2 and v3 have rows for.
ROUND = np.array([(9 * np.cos(a), 5 * np.sin(a)) for a in np.linspace(0, 6, 31)])
ROUND = np.concatenate([ROUND, ROUND[:1]])


def stored(number: int) -> tuple[list[dict], dict]:
    """Vertices, and what the original project makes of them."""
    with np.load(HERE / 'data/map_targets.npz') as file:
        frame = {k[2:]: file[k] for k in file if k.startswith(f'{number}_')}
    lines = np.split(frame['vertices'], np.cumsum(frame['counts'])[:-1])
    vectors = [dict(label=k, pts=line) for k, line in zip(frame['labels'], lines, strict=True)]
    return vectors, frame


def check(vectors, expected, pattern) -> None:
    made = build_map_targets(vectors, PATCH, 20, pattern)
    names = dict(pts='fixed_pts', bboxes='bbox', labels='labels', shifted_pts=f'shift_{pattern}')
    for ours, theirs in names.items():
        target = torch.as_tensor(expected[theirs])
        assert made[ours].dtype == target.dtype and made[ours].shape == target.shape
        torch.testing.assert_close(made[ours], target, rtol=0, atol=2e-6)


@pytest.mark.parametrize('number', [0, 1])
@pytest.mark.parametrize('pattern', SHIFT_PATTERNS)
def test_targets_are_the_original_ones(pattern, number):
    check(*stored(number), pattern)


@pytest.mark.parametrize('pattern', SHIFT_PATTERNS)
def test_targets_are_those_of_the_reference(pattern):
    path = REFERENCE / 'gt_tiny.pt'
    if not path.is_file():
        pytest.skip(f'{path} is not there; VAD_REFERENCE names another folder')
    for frame in torch.load(path, weights_only=True)['gt']:
        lines = zip(frame['map_labels'], frame['map_lines'], strict=True)
        vectors = [dict(label=int(label), pts=np.array(points)) for label, points in lines]
        check(vectors, {k.removeprefix('map_'): v for k, v in frame.items()}, pattern)


def test_points_lie_at_equal_distances():
    rng = np.random.default_rng(1)
    for count in (2, 3, 40):
        vertices = rng.uniform(-12, 12, (count, 2))
        line = LineString(vertices)
        expected = [line.interpolate(d).coords[0] for d in np.linspace(0, line.length, 20)]
        np.testing.assert_allclose(fixed_points(vertices, 20, PATCH), expected, atol=1e-5)


def test_repeated_vertices_and_points_outside():
    points = fixed_points([(0, -40), (0, -40), (0, 40), (0, 40)], 9, PATCH)
    np.testing.assert_allclose(points[:, 1], [-30, -30, -20, -10, 0, 10, 20, 30, 30])
    assert not points[:, 0].any() and np.isfinite(points).all()


@pytest.mark.parametrize('pattern, ways', [('v2', 1), ('v3', 2)])
def test_choice_among_too_many_orders(pattern, ways):
    def rows(rng=None):
        made = build_map_targets([dict(label=1, pts=ROUND)], PATCH, 20, pattern, rng)
        return made['shifted_pts'][0]

    every = SHIFT_PATTERNS[pattern].orders(ROUND, 20, PATCH)
    assert len(every) == 31 * ways
    picked = [
        int(np.abs(every - row.numpy()).reshape(len(every), -1).max(1).argmin()) for row in rows()
    ]
    assert len(set(picked)) == 19 * ways and (rows() > -100).all()
    if ways == 2:
        assert [p + 31 for p in picked[:19]] == picked[19:]
    assert torch.equal(rows(), rows())
    assert torch.equal(rows(np.random.default_rng(3)), rows(np.random.default_rng(3)))
    assert not torch.equal(rows(np.random.RandomState(4)), rows(np.random.RandomState(5)))


def test_orders_of_a_closed_line_start_at_its_vertices():
    square = np.array([(-2, -1), (2, -1), (2, 1), (-2, 1), (-2, -1)], dtype=np.float64)
    v2, v3 = (SHIFT_PATTERNS[name].orders(square, 13, PATCH) for name in ('v2', 'v3'))
    np.testing.assert_allclose(v2[:, 0], square[[0, 3, 2, 1]])
    np.testing.assert_allclose(v3[:4], v2)
    np.testing.assert_allclose(v3[4, [0, 2]], [(-2, 1), (0, 1)])  # the other way round
    assert (v3[:, 0] == v3[:, -1]).all()


@pytest.mark.parametrize('pattern', SHIFT_PATTERNS)
def test_no_map_elements(pattern):
    made = build_map_targets([], PATCH, 20, pattern)
    rows = SHIFT_PATTERNS[pattern].rows(20)
    assert {k: tuple(v.shape) for k, v in made.items()} == dict(
        labels=(0,), pts=(0, 20, 2), bboxes=(0, 4), shifted_pts=(0, rows, 20, 2)
    )
    assert made['labels'].dtype == torch.long


def test_unknown_pattern():
    with pytest.raises(UserError, match="shift pattern 'v9' is none of v0, v1"):
        build_map_targets([], PATCH, 20, 'v9')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_tiny_nuscenes(tmp_path_factory.mktemp('tiny') / 'root', frames=2)


@pytest.fixture(scope='module')
def layers(root) -> MapLayers:
    return MapProvider(root).layers('boston-seaport')


def pose(x: float, y: float, degrees: float) -> np.ndarray:
    """A LiDAR whose x axis points there, at map coordinates relative to ``ORIGIN``."""
    matrix = np.eye(4)
    matrix[:3, :3] = Quaternion(axis=[0, 0, 1], degrees=degrees).rotation_matrix
    matrix[:3, 3] = ORIGIN + [x, y, 1.8]
    return matrix


def of_label(vectors, label):
    return [vector['pts'] for vector in vectors if vector['label'] == label]


def test_dividers_are_cut_and_split(layers):
    """West of the crossroad: one along the road, and one that leaves the patch and returns."""
    along, *pieces = of_label(extract(layers, pose(-8, 0, 0)), 0)
    np.testing.assert_allclose(along, [[-15, 0.4329], [8, 0.4], [15, 0.42]], atol=1e-3)
    assert len(pieces) == 2
    ends = [[(-15, 4.1205), (15, 4.1974)], [(15, 12.1), (-15, 20.3372)]]
    np.testing.assert_allclose([piece[[0, -1]] for piece in pieces], ends, atol=1e-3)
    assert along.dtype == np.float32


def test_crossings_are_joined_and_closed(layers):
    crossings = of_label(extract(layers, pose(0, 0, 0)), 1)
    assert len(crossings) == 1  # two that overlap, and one that is not valid
    ring = LinearRing(crossings[0])
    assert (crossings[0][0] == crossings[0][-1]).all() and not ring.is_ccw
    assert ring.bounds == pytest.approx((4, -8, 9, 9), abs=1e-5)


def test_crossing_at_the_border_stays_closed(layers):
    (crossing,) = of_label(extract(layers, pose(-9, 0, 0)), 1)  # the patch ends at x = 6
    assert (crossing[0] == crossing[-1]).all()
    assert crossing[:, 0].max() == pytest.approx(15, abs=1e-4)


def test_boundaries_are_outlines_without_the_border_of_the_patch(layers):
    lines = of_label(extract(layers, pose(0, 0, 0)), 2)
    for line in lines:
        assert (np.abs(line[:, 0]) <= 14.8001).all() and (np.abs(line[:, 1]) <= 29.8001).all()
    closed = [line for line in lines if (line[0] == line[-1]).all()]
    assert len(closed) == 1 and LinearRing(closed[0]).is_ccw  # the hole
    assert LinearRing(closed[0]).bounds == pytest.approx((-3, 3, -1, 4), abs=1e-5)
    south = next(line for line in lines if line[:, 1].min() == pytest.approx(-29.8))
    np.testing.assert_allclose(south, [(10, -29.8), (10, -8), (-14.8, -8)], atol=1e-5)


@pytest.mark.parametrize('degrees', [-120.0, 33.0])
def test_turning_the_lidar_turns_the_lines(layers, degrees):
    here = pose(3, 4, degrees)
    vectors = extract(layers, here)
    assert {vector['label'] for vector in vectors} == {0, 1, 2}
    unturned = extract(layers, pose(3, 4, 0), (140.0, 140.0))
    for label in (0, 2):  # crossings gain edges at the patch's border
        whole = MultiLineString(of_label(unturned, label))
        for line in of_label(vectors, label):
            points = fixed_points(line, 20, PATCH) @ here[:2, :2].T
            assert max(whole.distance(Point(point)) for point in points) < 1e-4


def test_pose_as_translation_and_quaternion(layers):
    matrix = pose(3, 4, 33.0)
    pair = (matrix[:3, 3], Quaternion(matrix=matrix).elements)
    for a, b in zip(extract(layers, matrix), extract(layers, pair), strict=True):
        assert a['label'] == b['label']
        np.testing.assert_allclose(a['pts'], b['pts'], atol=1e-5)


def test_nothing_near(layers):
    assert extract(layers, pose(500, 500, 0)) == []


def test_touching_is_no_line():
    assert lines_of(Point(0, 0)) == [] and lines_of(LineString()) == []
    assert len(lines_of(MultiLineString([[(0, 0), (1, 0)], [(5, 5), (5, 5)]]))) == 1


def test_provider_prefers_the_records_own(root):
    provider = MapProvider(root)
    own = [dict(label=0, pts=np.zeros((2, 2)))]
    assert provider.of_info(dict(map_vectors=own)) is own
    record = dict(
        map_location='boston-seaport',
        lidar2ego_translation=[0, 0, 0], lidar2ego_rotation=[1, 0, 0, 0],
        ego2global_translation=list(ORIGIN), ego2global_rotation=[1, 0, 0, 0],
    )  # fmt: skip
    expected = extract(provider.layers('boston-seaport'), pose(0, 0, 0))
    for a, b in zip(provider.of_info(record), expected, strict=True):
        np.testing.assert_array_equal(a['pts'], b['pts'])


def test_provider_says_what_is_missing(root, tmp_path):
    with pytest.raises(
        DataNotFoundError, match='maps/expansion/singapore-queenstown.json does not'
    ):
        MapProvider(root).layers('singapore-queenstown')
    folder = tmp_path / 'maps/expansion'
    folder.mkdir(parents=True)
    (folder / 'boston-seaport.json').write_text('{')
    with pytest.raises(UserError, match='boston-seaport.json is not a nuScenes map expansion'):
        MapProvider(tmp_path).layers('boston-seaport')


def test_map_object_or_its_layers(root):
    from nuscenes.map_expansion.map_api import NuScenesMap

    nusc_map = NuScenesMap(dataroot=str(root), map_name='boston-seaport')
    a = extract(nusc_map, pose(0, 0, 10))
    b = extract(MapProvider(root).layers('boston-seaport'), pose(0, 0, 10))
    assert len(a) == len(b) > 4 and all(
        (x['pts'] == y['pts']).all() for x, y in zip(a, b, strict=True)
    )
