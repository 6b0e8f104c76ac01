"""Chamfer scores, matching and average precision against the original's, and by definition."""

import numpy as np
import pytest
from vad_cases import MAP_CLASSES

from projects.vad.evaluation import average_precision as ap
from projects.vad.evaluation import chamfer


def of_class(cases, label):
    """Resampled predictions, their scores, and resampled true lines of one class."""
    predicted = [p for p in cases['map_ap']['preds'] if p['type'] == label]
    true = [t for t in cases['map_ap']['gts'] if t['type'] == label]
    return (
        [chamfer.resample(np.array(p['pts'])) for p in predicted],
        np.array([p['score'] for p in predicted]),
        [chamfer.resample(np.array(t['pts'])) for t in true],
    )


@pytest.mark.parametrize('label', range(3), ids=MAP_CLASSES)
def test_scores_are_the_originals(cases, label):
    predicted, _, true = of_class(cases, label)
    expected = cases['map_ap']['results'][f'{MAP_CLASSES[label]}_matrix']
    np.testing.assert_allclose(chamfer.score_matrix(predicted, true), expected, atol=1e-6)


@pytest.mark.parametrize('threshold', [0.5, 1.0, 1.5])
@pytest.mark.parametrize('label', range(3), ids=MAP_CLASSES)
def test_precision_is_the_originals(cases, label, threshold):
    predicted, scores, true = of_class(cases, label)
    expected = cases['map_ap']['results'][f'{MAP_CLASSES[label]}_{threshold}']
    right = ap.true_positives(chamfer.score_matrix(predicted, true), scores, threshold)
    assert right.astype(int).tolist() == expected['tp']
    assert (~right).astype(int).tolist() == expected['fp']
    assert ap.average_precision(right, scores, len(true)) == pytest.approx(expected['ap'])


def test_chamfer_distance_by_definition():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(7, 2)), rng.normal(size=(5, 2))
    there = [min(np.linalg.norm(p - q) for q in second) for p in first]
    back = [min(np.linalg.norm(p - q) for p in first) for q in second]
    expected = (np.mean(there) + np.mean(back)) / 2
    assert chamfer.chamfer_distance(first, second) == pytest.approx(expected)


def test_points_are_spread_evenly():
    line = chamfer.resample(np.array([[0, 0], [3, 0], [3, 1]]), 5)
    np.testing.assert_allclose(line, [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]])


def test_what_is_no_line_is_apart_from_all():
    true = [chamfer.resample(np.array([[0.0, 0], [5, 0]]))]
    strange = [np.full((100, 2), np.nan), np.zeros((100, 2)), np.array([[0.0, 0], [np.inf, 1]])]
    assert (chamfer.score_matrix(strange, true) == chamfer.APART).all()
    assert chamfer.score_matrix([], true).shape == (0, 1)
    assert chamfer.score_matrix(true, []).shape == (1, 0)
    assert not chamfer.is_line(np.zeros((1, 2)))


def test_a_prediction_gets_no_second_choice():
    matrix = np.array([[-0.1, -0.2], [-0.1, -0.2]])
    assert ap.true_positives(matrix, np.array([0.4, 0.9]), 0.5).tolist() == [False, True]


def test_precision_of_nothing():
    assert ap.average_precision(np.zeros(0, bool), np.zeros(0), 3) == 0
    assert ap.average_precision(np.zeros(2, bool), np.ones(2), 0) == 0
    assert ap.true_positives(np.zeros((0, 3)), np.zeros(0), 1.0).tolist() == []
    assert ap.true_positives(np.zeros((2, 0)), np.ones(2), 1.0).tolist() == [False, False]


def test_precision_of_a_known_curve():
    """Right, wrong, right, right of four: 0.25 x 1 + 0.5 x 3/4."""
    right = np.array([True, False, True, True])
    assert ap.average_precision(right, -np.arange(4.0), 4) == pytest.approx(0.625)
