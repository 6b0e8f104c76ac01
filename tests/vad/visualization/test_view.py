"""From data samples to what a picture shows."""

import numpy as np
import pytest
import torch
from drawing_samples import CLASSES, GREYS, MAP_CLASSES, make_sample
from mmengine.structures import InstanceData

from projects.prune_plugin.common.errors import UserError
from projects.vad.visualization import view_of
from projects.vad.visualization.palette import CLASS_COLORS, GREY, color_of


@pytest.fixture
def view(tmp_path):
    return view_of(make_sample(tmp_path), CLASSES, MAP_CLASSES)


def test_predictions_are_kept_by_score_and_sorted(view):
    assert view.found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert view.found.labels.tolist() == [2, 0]
    assert view.found.boxes[:, 1].tolist() == [20, 10]
    assert view.found_lines.labels.tolist() == [2]
    assert view.shown is view.found


def test_offsets_become_positions(view):
    offsets = np.arange(3 * 6 * 12).reshape(3, 6, 6, 2)[2, 4] / 100
    expected = [np.array([0.0, 20.0])]
    for offset in offsets:
        expected.append(expected[-1] + offset)
    np.testing.assert_allclose(view.found.paths[0, 4], expected, atol=1e-5)
    assert view.found.best is None


def test_the_best_mode_is_the_one_with_the_highest_score(tmp_path):
    sample = make_sample(tmp_path)
    scores = torch.zeros(3, 6)
    scores[2, 3], scores[0, 5] = 1, 1
    sample.pred_instances_3d.mode_scores = scores
    assert view_of(sample, CLASSES, MAP_CLASSES).found.best.tolist() == [3, 5]


def test_the_truth_ends_where_its_mask_ends(view):
    np.testing.assert_allclose(view.truth.paths[0, 0, :, 1], 10 + np.arange(7))
    assert np.isfinite(view.truth.paths[1, 0, :3]).all()
    assert np.isnan(view.truth.paths[1, 0, 3:]).all()


def test_the_plan_is_the_one_of_the_command(view):
    assert view.command == 'left'
    np.testing.assert_allclose(view.planned_path, np.arange(7)[:, None] * [-1, 1])
    np.testing.assert_allclose(view.true_path, np.arange(7)[:, None] * [0, 2])


def test_images_are_read_and_the_ground_is_below(view):
    assert [int(image[0, 0, 0]) for image in view.images] == list(GREYS)
    assert view.ground == pytest.approx(-1.8)


def test_the_truth_alone(tmp_path):
    view = view_of(make_sample(tmp_path, predicted=False), CLASSES, MAP_CLASSES)
    assert view.found is view.found_lines is view.planned_path is None
    assert view.shown is view.truth
    assert len(view.true_lines.points) == 1


def test_an_unknown_future_is_left_out(tmp_path):
    sample = make_sample(tmp_path)
    sample.gt_ego.fut_masks = torch.zeros(6)
    assert view_of(sample, CLASSES, MAP_CLASSES).true_path is None


def test_nothing_found(tmp_path):
    sample = make_sample(tmp_path)
    view = view_of(sample, CLASSES, MAP_CLASSES, score=1, map_score=1)
    assert len(view.found) == 0 and len(view.found_lines.points) == 0
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=torch.zeros(0, 9), labels_3d=torch.zeros(0), attr_labels=torch.zeros(0, 34)
    )
    assert len(view_of(sample, CLASSES, MAP_CLASSES).truth) == 0


def test_a_missing_image_is_named(tmp_path):
    sample = make_sample(tmp_path)
    (tmp_path / 'CAM_BACK.png').unlink()
    with pytest.raises(UserError, match='CAM_BACK.png'):
        view_of(sample, CLASSES, MAP_CLASSES)


def test_colours_differ_and_strangers_have_some():
    assert len(set(CLASS_COLORS.values())) == len(CLASS_COLORS) == 10
    assert color_of(('car',), 0) == CLASS_COLORS['car']
    assert color_of(('rickshaw',), 0).startswith('#')
    assert color_of(('car',), -1) == color_of(('car',), 1) == GREY
