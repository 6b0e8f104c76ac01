"""Projection against a formula of its own; clipping against points sampled along the edges."""

import numpy as np
import pytest
from drawing_samples import INTRINSIC, YAWS, box, rig, rotation

from projects.vad.visualization import projection


def sampled(start: np.ndarray, end: np.ndarray, near: float) -> np.ndarray:
    """Pixels of many points of a segment, of those before the camera."""
    points = start + np.linspace(0, 1, 4001)[:, None] * (end - start)
    points = points[points[:, 2] >= near]
    return points[:, :2] / points[:, 2:]


@pytest.mark.parametrize('camera', range(6))
def test_points_land_where_a_pinhole_puts_them(camera):
    rng = np.random.default_rng(camera)
    local = rng.uniform((-3, -2, 1), (3, 2, 20), (50, 3))  # right, down, ahead of the camera
    world = local @ rotation(YAWS[camera]).T
    pixels = projection.to_pixels(projection.to_camera(world, rig()[camera]))
    expected = local[:, :2] / local[:, 2:] * INTRINSIC[0, 0] + INTRINSIC[:2, 2]
    np.testing.assert_allclose(pixels, expected, atol=1e-9)


def test_the_front_face_is_where_the_box_heads():
    """A box 10 m ahead that heads right: its front face is at the right in the front camera."""
    corners = projection.box_corners(np.array([box(0, 10, heading=0)]))[0]
    np.testing.assert_allclose(corners[projection.FRONT, 0], 2)
    pixels = projection.to_pixels(projection.to_camera(corners, rig()[0]))
    front, all_u = pixels[projection.FRONT, 0], pixels[:, 0]
    assert front.min() > all_u.mean()


def test_edges_join_neighbours_once():
    corners = projection.box_corners(np.array([box(0, 0, 30, (2.0, 4.0, 1.6))]))[0]
    starts, ends = corners[projection.EDGES].swapaxes(0, 1)
    lengths = np.sort(np.linalg.norm(starts - ends, axis=1))
    np.testing.assert_allclose(lengths, [1.6] * 4 + [2] * 4 + [4] * 4)
    assert len({frozenset(edge) for edge in projection.EDGES.tolist()}) == 12


def test_segments_are_cut_at_the_near_plane():
    rng = np.random.default_rng(0)
    segments = rng.uniform((-2, -2, -3), (2, 2, 3), (300, 2, 3))
    near = 0.5
    seen = (segments[..., 2] >= near).any(axis=1)
    clipped = projection.clip_segments(segments, near)
    assert 0 < len(clipped) == seen.sum() < 300
    for (start, end), pixels in zip(segments[seen], clipped, strict=True):
        expected = sampled(start, end, near)
        scale = 1 + np.abs(pixels).max()
        np.testing.assert_allclose(pixels[0] / scale, expected[0] / scale, atol=5e-3)
        np.testing.assert_allclose(pixels[1] / scale, expected[-1] / scale, atol=5e-3)


def test_clipping_leaves_its_input_alone():
    segments = np.array([[[0.0, 0, -1], [1, 1, 3]]])
    before = segments.copy()
    projection.clip_segments(segments)
    np.testing.assert_array_equal(segments, before)


@pytest.mark.parametrize('shift, corners', [(5, 4), (0, 4), (-5, 0)])
def test_polygons_are_cut_at_the_near_plane(shift, corners):
    square = np.array([(-1.0, 0, -1), (1, 0, -1), (1, 0, 1), (-1, 0, 1)]) + (0, 0, shift)
    pixels = projection.clip_polygon(square, near=0.25)
    assert pixels.shape == (corners, 2)
    if shift == 0:  # the near edge goes from depth -1 to 0.25: four times as wide as at depth 1
        assert sorted(pixels[:, 0]) == [-4, -1, 1, 4]


def test_what_meets_the_image_is_visible():
    square = np.array([(0, 0), (10, 0), (10, 10), (0, 10.0)])
    assert projection.visible(square, 100, 50)
    assert projection.visible(square + (95, 45), 100, 50)
    assert not projection.visible(square + (100, 0), 100, 50)
    assert not projection.visible(square - (0, 11), 100, 50)
    assert not projection.visible(np.zeros((0, 2, 2)), 100, 50)
