"""The BEV grid, projection, ego motion and rotation against plain geometry."""

import copy
import math

import numpy as np
import pytest
import tiny_vad as tiny
import torch

from projects.vad.models import bev_geometry as geometry

RANGE = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
CPU = torch.device('cpu')
H, W = 5, 3


def pillars():
    return geometry.pillar_points(H, W, 4, RANGE, CPU)


def matrices(batch=2, cameras=3):
    return np.stack([tiny.rig(cameras, first=0.7 * b) for b in range(batch)])


def test_cells_run_along_x_first():
    points = geometry.grid_points(H, W, CPU)
    for row in range(H):
        for column in range(W):
            expected = [(column + 0.5) / W, (row + 0.5) / H]
            assert points[row * W + column].tolist() == pytest.approx(expected)


def test_pillars_are_metres():
    points = pillars()
    assert points.shape == (4, H * W, 3)
    for level, z in enumerate((-1.5, -0.5, 0.5, 1.5)):
        for row in range(H):
            for column in range(W):
                expected = [-10 + 10 * column, -24 + 12 * row, z]
                assert points[level, row * W + column].tolist() == pytest.approx(expected)


def test_projection_is_the_pinhole_cameras():
    points, lidar2img = pillars(), matrices()
    places, inside = geometry.project(points, torch.tensor(lidar2img).float(), (64, 96))
    assert places.shape == (2, 3, H * W, 4, 2) and inside.shape == (2, 3, H * W, 4)
    for b in range(2):
        for camera in range(3):
            for cell in range(H * W):
                for level in range(4):
                    x, y, depth, _ = lidar2img[b, camera] @ [*points[level, cell].numpy(), 1.0]
                    u, v = x / depth / 96, y / depth / 64
                    seen = depth > 1e-5 and 0 < u < 1 and 0 < v < 1
                    assert bool(inside[b, camera, cell, level]) == seen
                    if depth > 0.1:
                        found = places[b, camera, cell, level]
                        np.testing.assert_allclose(found, [u, v], atol=1e-4, rtol=1e-4)
    assert 0 < inside.float().mean() < 0.5


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_projection_is_exact_in_mixed_precision(dtype):
    """Products of hundreds of pixels and tens of metres don't fit into half floats."""
    arguments = pillars(), torch.tensor(matrices()).float(), (64, 96)
    places, inside = geometry.project(*arguments)
    with torch.autocast('cpu', dtype=dtype):
        found = geometry.project(*arguments)
    assert torch.equal(found[0], places) and torch.equal(found[1], inside)


def test_hits_list_each_pair_once():
    places = torch.rand(2, 3, 6, 4, 2)
    inside = torch.rand(2, 3, 6, 4) > 0.75
    inside[1, 0] = False  # a camera that sees nothing
    inside[:, :, 5] = False  # a cell that no camera sees
    hits = geometry.camera_hits(places, inside)
    expected, slots, longest = [], [], 0
    for b in range(2):
        for camera in range(3):
            cells = [cell for cell in range(6) if inside[b, camera, cell].any()]
            expected += [(b, camera, cell) for cell in cells]
            slots += range(len(cells))
            longest = max(longest, len(cells))
    assert hits.query.tolist() == [b * 6 + cell for b, _, cell in expected]
    assert hits.rows.batch.tolist() == [b * 3 + camera for b, camera, _ in expected]
    assert hits.rows.slot.tolist() == slots
    assert hits.rows.longest == longest
    for i, (b, camera, cell) in enumerate(expected):
        assert torch.equal(hits.points[i], places[b, camera, cell])
    for b in range(2):
        for cell in range(6):
            count = sum((b, camera, cell) in expected for camera in range(3))
            assert hits.cameras[b, cell] == max(count, 1)


def test_no_camera_sees_anything():
    hits = geometry.camera_hits(torch.rand(1, 2, 6, 4, 2), torch.zeros(1, 2, 6, 4) > 0)
    assert len(hits.query) == len(hits.points) == hits.rows.longest == 0
    assert (hits.cameras == 1).all()


def test_hits_are_kept_while_nothing_changes():
    cache, points, lidar2img = geometry.HitsCache(), pillars(), matrices()
    first = cache.get(points, lidar2img, (64, 96))
    assert cache.get(points, lidar2img.copy(), (64, 96)) is first
    moved = lidar2img.copy()
    moved[1, 2, 0, 3] += 40.0
    second = cache.get(points, moved, (64, 96))
    assert second is not first
    fresh = geometry.HitsCache().get(points, moved, (64, 96))
    assert torch.equal(second.points, fresh.points) and torch.equal(second.query, fresh.query)
    assert cache.get(points, moved, (32, 96)) is not second
    one = cache.get(points, moved[:1], (64, 96))
    assert one.cameras.shape == (1, H * W)
    assert copy.deepcopy(cache).hits is None


def test_hits_differ_with_the_shape_of_the_rig():
    """The same numbers, as two cameras of one sample or one camera of two."""
    cache, lidar2img = geometry.HitsCache(), matrices(1, 2)
    assert cache.get(pillars(), lidar2img, (64, 96)).cameras.shape == (1, H * W)
    hits = cache.get(pillars(), lidar2img.reshape(2, 1, 4, 4), (64, 96))
    assert hits.cameras.shape == (2, H * W)


def test_hits_of_inference_mode_serve_training():
    """A model that was looked at in inference mode can be trained afterwards."""
    cache, lidar2img = geometry.HitsCache(), matrices()
    with torch.inference_mode():
        cache.get(pillars(), lidar2img, (64, 96))
    hits = cache.get(pillars(), lidar2img, (64, 96))
    values = torch.randn(len(hits.query), 3, requires_grad=True)
    total = torch.zeros(2 * H * W, 3).index_add(0, hits.query, values)
    (total / hits.cameras.view(-1, 1)).square().sum().backward()
    assert values.grad.any()


def can_bus(dx, dy, yaw):
    values = np.zeros((1, 18))
    values[0, :2], values[0, -2] = (dx, dy), yaw
    return values


@pytest.mark.parametrize('yaw', [0.0, 0.7, 2.0, 3.1, 4.5, 6.0])
def test_shift_is_the_motion_in_the_egos_frame(yaw):
    """3 m ahead and 2 m to the right, whatever the heading: x is right, y is ahead."""
    ahead = np.array([math.cos(yaw), math.sin(yaw)])
    right = np.array([math.sin(yaw), -math.cos(yaw)])
    for forward, side in ((3.0, 0.0), (0.0, 2.0), (3.0, 2.0), (-1.0, -0.5)):
        shift = geometry.bev_shift(can_bus(*(forward * ahead + side * right), yaw), (30.0, 60.0))
        np.testing.assert_allclose(shift, [[side / 30, forward / 60]], atol=1e-12)
    assert not geometry.bev_shift(can_bus(0.0, 0.0, yaw), (30.0, 60.0)).any()


def test_shift_of_a_batch():
    both = np.concatenate([can_bus(3, 1, 0.2), can_bus(-2, 5, 1.2)])
    found = geometry.bev_shift(both, (30.0, 60.0))
    assert found.shape == (2, 2)
    for i in range(2):
        np.testing.assert_array_equal(
            found[i : i + 1], geometry.bev_shift(both[i : i + 1], (30, 60))
        )


def turned(bev, degrees, center):
    """Cell by cell; x runs along columns, y along rows, and a left turn moves +x towards -y."""
    height, width = bev.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    out = np.zeros_like(bev)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5 - center[0], row + 0.5 - center[1]
            source = x * cos - y * sin + center[0], x * sin + y * cos + center[1]
            j, i = (math.floor(value) for value in source)
            if 0 <= i < height and 0 <= j < width:
                out[row, column] = bev[i, j]
    return out


@pytest.mark.parametrize('center', [(3, 3), (6, 6), (100, 100)], ids=str)
def test_rotation_cell_by_cell(center):
    """(100, 100) is outside of this grid, as it is a corner of the tiny model's."""
    bev = torch.randn(2, 7 * 6, 4)
    angles = [17.3, -2.1]
    found = geometry.rotate_bev(bev, angles, (7, 6), center)
    for i in range(2):
        expected = turned(bev[i].view(7, 6, 4).numpy(), angles[i], center)
        np.testing.assert_array_equal(found[i].view(7, 6, 4), expected)


def test_a_left_turn_moves_landmarks_to_the_right():
    """About the middle of the grid: what was ahead (+y) is then to the right (+x)."""
    bev = torch.zeros(1, 5, 5, 1)
    bev[0, 4, 2] = 1.0
    found = geometry.rotate_bev(bev.flatten(1, 2), [90.0], (5, 5), (2.5, 2.5)).view(5, 5)
    assert found.nonzero().tolist() == [[2, 4]]


def test_whole_turns_change_nothing():
    """359 to 1 degree is a difference of -358: 2 degrees after all."""
    bev = torch.randn(1, 36, 3)
    two, other = (geometry.rotate_bev(bev, [a], (6, 6), (3, 3)) for a in (2.0, -358.0))
    assert torch.equal(two, other)
    assert torch.equal(geometry.rotate_bev(bev, [0.0], (6, 6), (100, 100)), bev)
