"""The parts of the toy drive: what happens in its scenes, its map mask, its LiDAR."""

import io
import struct
import zlib

import numpy as np
import pytest
from shapely.geometry import box

from projects.vad.datasets.toy import lidar, mask
from projects.vad.datasets.toy.geometry import Path, overlap, rectangle
from projects.vad.datasets.toy.place import CANVAS, places
from projects.vad.datasets.toy.scenarios import TRAIN_KINDS, kinds, play


@pytest.mark.parametrize('kind', TRAIN_KINDS)
def test_every_kind_of_scene_moves_and_nobody_collides(kind):
    scenario = play(kind, [1, 5], 6.0)
    ego, agents = scenario.ego, scenario.agents
    times = np.arange(0, 6.01, 0.1)
    s, v, a = ego.motion(times)
    assert (v > -1e-9).all() and v.max() < 14 and a.min() > -8
    assert s[-1] - s[0] > 6
    x, y, yaw = ego.path.at(s)
    step = np.stack([np.diff(x), np.diff(y)], 1)
    moving = np.linalg.norm(step, axis=1) > 0.05
    heading = np.arctan2(step[:, 1], step[:, 0])[moving]
    assert np.cos(heading - (yaw[1:] + yaw[:-1])[moving] / 2).min() > 0.999  # along the tangent
    straight = np.stack(
        [x[0] + np.cos(yaw[0]) * v[0] * times, y[0] + np.sin(yaw[0]) * v[0] * times]
    )
    assert np.abs(straight - [x, y]).max() > 1.5  # not at constant velocity
    others = {a.category.split('.')[0] for a in agents[1:]}
    assert {'vehicle', 'human'} <= others and len(agents) > 20
    for t in times[::5]:
        own = ego.footprint(t)
        assert not any(overlap(own, agent.footprint(t)) for agent in agents[1:])


def test_turns_go_where_they_say():
    for kind, sign in (('left', 1), ('right', -1)):
        yaw = play(kind, [2, 0], 9.5).ego.path.yaw
        assert yaw[-1] * sign > 0.7


def test_kinds_are_fixed_by_the_seed():
    assert kinds(8, 2, 4) == kinds(8, 2, 4)
    assert len(kinds(4, 2, 0)) == 6 and set(kinds(4, 2, 0)) >= {'left', 'right', 'follow'}


def test_places_keep_scenes_apart():
    spots = places(10, 0)
    for i, a in enumerate(spots):
        assert 290 < a.x < CANVAS[0] - 290 and 290 < a.y < CANVAS[1] - 290
        assert all(np.hypot(a.x - b.x, a.y - b.y) > 590 for b in spots[:i])


def test_path_projection_inverts_positions():
    path = Path(np.stack([np.linspace(0, 60, 61), 10 * np.sin(np.linspace(0, 2, 61))], 1))
    s = np.array([5.0, 20.3, 41.7])
    x, y, yaw = path.at(s)
    beside = np.array([1.5, -2.0, 0.5])
    points = np.stack([x - beside * np.sin(yaw), y + beside * np.cos(yaw)], 1)
    along, across = path.project(points)
    assert np.allclose(along, s, atol=0.15) and np.allclose(across, beside, atol=0.1)


def test_lidar_sees_the_near_box_and_not_the_one_behind():
    boxes = np.array([
        [10.0, 0.0, 1.0, 4.0, 2.0, 2.0, 0.0],
        [16.0, 0.0, 0.6, 4.0, 1.5, 1.2, 0.0],
        [0.0, -8.0, 0.9, 0.7, 0.7, 1.8, 0.3],
    ])  # fmt: skip
    points, hits = lidar.sweep((0.0, 0.0, 0.0), boxes, np.random.default_rng(0))
    assert hits[0] > 50 and hits[1] == 0 and hits[2] > 5
    x, y, z, _, ring = points.T
    assert points.dtype == np.float32 and set(ring) <= set(range(32))
    near = (np.abs(x) < 0.9) & (y > 5) & (y < 12) & (z > -1.6)
    assert np.abs(y[near & (z < 0.1)] - (8.0 - 0.94)).max() < 0.1  # its back, ahead of the LiDAR


def test_rectangles_overlap():
    a = rectangle((0, 0), 0.0, 4, 2)
    assert overlap(a, rectangle((2.5, 1.2), np.pi / 4, 4, 2))
    assert not overlap(a, rectangle((3.2, 2.2), np.pi / 4, 2, 2))


def test_mask_is_a_png_of_the_roads(tmp_path):
    class Roads:
        drivable = box(-40, -5, 40, 5)
        walkway = box(-40, 5, 40, 8)

    place = places(1, 0)[0]
    mask.write(tmp_path / 'mask.png', [(Roads, place)])
    file = io.BytesIO((tmp_path / 'mask.png').read_bytes())
    assert file.read(8) == b'\x89PNG\r\n\x1a\n'
    content = {}
    while chunk := file.read(8):
        size, name = struct.unpack('>I4s', chunk)
        content[name] = file.read(size)
        assert struct.unpack('>I', file.read(4))[0] == zlib.crc32(name + content[name])
    width, height = struct.unpack('>II', content[b'IHDR'][:8])
    assert (width, height) == (29795, 21181)
    inflate, read = zlib.decompressobj(), content[b'IDAT']
    x, y = place.to_map([0.0, 6.5])
    row, total, found = height - round(y * 10), 0, None
    while not inflate.eof:
        part = inflate.decompress(read, 1 << 22)
        read = inflate.unconsumed_tail
        at = row * (width + 1) + 1 + round(x * 10)
        if total <= at < total + len(part):
            found = part[at - total]
        total += len(part)
    assert total == height * (width + 1) and found == 255
