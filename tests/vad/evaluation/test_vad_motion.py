"""Matching and motion counters against the original's, and against hand-made cases."""

import numpy as np
import pytest
import torch
from vad_cases import CLASSES, det_input, f32, ground_truth, reference

from projects.vad.evaluation import motion


def counted(predicted, true, score_thr=0.6):
    predicted = motion.predicted_agents(*predicted, score_thr)
    return motion.count(predicted, motion.true_agents(*true), CLASSES)


def predictions(cases):
    found = cases['motion']['pred']
    labels = np.array(found['labels_before'])
    return f32(found['boxes']), f32(found['scores']), labels, f32(found['trajs'])


def test_matching_is_the_originals(cases):
    predicted = motion.predicted_agents(*predictions(cases), 0.6)
    dynamic = [i for i, name in enumerate(CLASSES) if name in motion.DYNAMIC]
    assert dynamic == [0, 1, 3, 4, 6, 7, 8]
    matched = motion.match(predicted, motion.true_agents(*ground_truth(cases)), dynamic)
    assert matched.tolist() == cases['motion']['matched']


def test_counters_are_the_originals(cases):
    found = counted(predictions(cases), ground_truth(cases))
    assert found == pytest.approx(cases['motion']['metrics'], rel=1e-5)


@pytest.mark.parametrize('file', ['reference_tiny.pt', 'reference_tiny_192x320.pt'])
@pytest.mark.parametrize('frame', ['frame1', 'frame2'])
def test_counters_of_the_network_are_the_originals(file, frame):
    expected = torch.load(reference(file), weights_only=False)[frame]
    decoded = expected['decoded']
    names = ('bboxes_bottom_center', 'scores', 'labels', 'trajs')
    true = [t.numpy() for t in det_input().gt_agents()]
    found = counted([decoded[name].numpy() for name in names], true)
    assert found == pytest.approx({k: expected['metric_results'][k] for k in found}, rel=1e-5)


def test_without_predictions_and_without_truth():
    nothing = np.zeros((0, 9)), np.zeros(0), np.zeros(0, int), np.zeros((0, 6, 12))
    nobody = np.zeros((0, 9)), np.zeros(0, int), np.zeros((0, 34))
    assert set(counted(nothing, nobody).values()) == {0.0}
    one = np.zeros((1, 9)), np.ones(1), np.zeros(1, int), np.zeros((1, 6, 12))
    assert counted(one, nobody)['fp_car'] == 1
    true = np.zeros((1, 9)), np.zeros(1, int), np.ones((1, 34))
    assert counted(nothing, true)['gt_car'] == 1


def test_of_nan_nothing_comes():
    one = np.full((1, 9), np.nan), np.ones(1), np.zeros(1, int), np.zeros((1, 6, 12))
    found = counted(one, (np.zeros((1, 9)), np.zeros(1, int), np.ones((1, 34))))
    assert found['fp_car'] == 1 and found['hit_car'] == 0


def test_half_a_path_counts_for_ade_alone():
    attributes = np.zeros((1, 34))
    attributes[0, 12:15] = 1
    attributes[0, 0:6:2] = 1.0
    one = np.zeros((1, 9)), np.ones(1), np.full(1, 3), np.zeros((1, 2, 12))
    found = counted(one, (np.zeros((1, 9)), np.zeros(1, int), attributes))
    assert found['ADE_car'] == pytest.approx(2.0)
    assert found['cnt_ade_car'] == 1 and found['cnt_fde_car'] == 0 and found['gt_car'] == 0
