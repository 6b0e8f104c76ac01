"""Occupancy, collisions and distances against the original's, and by hand."""

import numpy as np
import pytest
import torch
from vad_cases import CLASSES, det_input, f32, ground_truth, reference

from projects.vad.evaluation import occupancy, planning

FAR_FROM_ALL = f32([[0, -40]] * 6)


def judged(path, true, grid) -> dict[str, float]:
    box, point = planning.collisions(path, true, grid)
    steps = dict(plan_L2=planning.distances(path, true), plan_obj_col=point, plan_obj_box_col=box)
    return planning.readings(steps)


def original(metrics) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k.startswith('plan_')}


def chosen(found, expected):
    return {name: found[name] for name in expected}


KINDS = dict(human=('pedestrian',), vehicle=set(occupancy.OBSTACLES) - {'pedestrian'})


def occupied_by(cases, names=occupancy.OBSTACLES) -> np.ndarray:
    boxes, labels, attributes = ground_truth(cases)
    chosen = [CLASSES[label] in names for label in labels]
    return occupancy.occupied(boxes[chosen], attributes[chosen])


@pytest.mark.parametrize('kind', KINDS)
def test_occupied_cells_are_the_originals(cases, kind):
    found = [np.argwhere(step).tolist() for step in occupied_by(cases, KINDS[kind])]
    assert found == cases['planning']['occupied_cells'][kind]


def test_boxes_are_left_as_they_are(cases):
    boxes, _, attributes = ground_truth(cases)
    before = boxes.copy(), attributes.copy()
    occupancy.occupied(boxes, attributes)
    assert np.array_equal(boxes, before[0]) and np.array_equal(attributes, before[1])


def test_obstacles_are_the_originals_categories(cases):
    """Rows 2 to 8 and 14 to 23 of category.json."""
    _, labels, attributes = ground_truth(cases)
    rows = attributes[:, 27].astype(int)
    expected = np.isin(rows, [*range(2, 9), *range(14, 24)])
    assert np.array_equal(occupancy.obstacles(labels, CLASSES), expected)
    assert expected.any() and not expected.all()
    assert not occupancy.obstacles(np.array([-1]), CLASSES).any()


def test_headings_are_the_originals(cases):
    """The original writes them into its boxes; here they only show in the corners."""
    boxes, _, attributes = ground_truth(cases)
    attributes[:, 28:34] = 0
    corners = occupancy.future_corners(boxes, attributes)[:, 0]
    along = corners[:, 0] - corners[:, 1]
    after = cases['planning']['gt_yaw_mutated_by_get_label']['after']
    length = boxes[:, 4]
    np.testing.assert_allclose(along[:, 0], np.cos(after) * length, atol=1e-5)
    np.testing.assert_allclose(along[:, 1], np.sin(after) * length, atol=1e-5)


@pytest.mark.parametrize('name', ['near_gt', 'rear_end', 'hits_oncoming', 'stopped', 'out_of_grid'])
def test_readings_are_the_originals(cases, name):
    true = f32(cases['planning']['ego_gt_cumsum'])
    case = cases['planning']['cases'][name]
    found = judged(f32(case['pred_cumsum']), true, occupied_by(cases))
    expected = original(case['metrics'])
    assert chosen(found, expected) == pytest.approx(expected, rel=1e-6)


def test_where_the_driver_collides_the_plan_may(cases):
    grid = occupied_by(cases)
    path = f32(cases['planning']['cases']['hits_oncoming']['pred_cumsum'])
    assert planning.collisions(path, FAR_FROM_ALL, grid)[0].any()
    expected = original(cases['planning']['gt_collides'])
    assert chosen(judged(path, path, grid), expected) == pytest.approx(expected)


@pytest.mark.parametrize('file', ['reference_tiny.pt', 'reference_tiny_192x320.pt'])
@pytest.mark.parametrize('frame', ['frame1', 'frame2'])
def test_readings_of_the_network_are_the_originals(file, frame):
    expected = torch.load(reference(file), weights_only=False)[frame]
    inputs = det_input()
    boxes, labels, attributes = (t.numpy() for t in inputs.gt_agents())
    drawn = occupancy.obstacles(labels, CLASSES)
    true = inputs.ego()['ego_fut_trajs'].view(6, 2).cumsum(0).numpy()
    path = expected['plan']['selected_offsets'].cumsum(0).numpy()
    found = judged(path, true, occupancy.occupied(boxes[drawn], attributes[drawn]))
    expected = original(expected['metric_results'])
    assert chosen(found, expected) == pytest.approx(expected, rel=1e-6)


def test_the_footprint_is_a_car_ahead_of_the_lidar():
    along, across = occupancy._footprint()
    assert (sorted(set(along)), sorted(set(across))) == ([*range(97, 105)], [*range(98, 102)])


def test_mean_to_and_at_a_second():
    found = planning.readings({'x': np.arange(6)})
    assert [found[f'x_{s}s'] for s in (1, 2, 3)] == [0.5, 1.5, 2.5]
    assert [found[f'x_at_{s}s'] for s in (1, 2, 3)] == [1, 3, 5]


def test_paths_that_need_no_learning():
    history = np.array([[9.0, 9.0], [0.5, 2.0]])
    assert planning.constant_velocity(history)[[0, 5]].tolist() == [[0.5, 2], [3, 12]]
    assert not planning.keep_still().any()


def test_a_path_of_nan_collides_with_nothing_and_has_no_distance():
    path = np.full((6, 2), np.nan)
    found = judged(path, FAR_FROM_ALL, np.zeros((6, 200, 200), bool))
    assert np.isnan(found['plan_L2_3s']) and found['plan_obj_box_col_3s'] == 0


def test_an_agent_is_drawn_while_its_track_exists():
    attributes = np.zeros((1, 34), np.float32)
    attributes[0, [12, 14]] = 1
    boxes = f32([[10, 20, 0, 2, 4, 1.5, 0, 0, 0]])
    grid = occupancy.occupied(boxes, attributes)
    assert grid.any(axis=(1, 2)).tolist() == [True, False, True, False, False, False]
    rows, columns = np.nonzero(grid[0])
    assert rows.mean() == pytest.approx(60, abs=1) and columns.mean() == pytest.approx(120, abs=1)
    path = np.tile(f32([10, 20]), (6, 1))
    assert occupancy.box_collisions(path, grid).tolist() == grid.any(axis=(1, 2)).tolist()
