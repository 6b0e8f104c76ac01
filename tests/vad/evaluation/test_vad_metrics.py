"""The four metrics as the evaluator runs them."""

import json
import math

import pytest
import small_tables
import vad_samples
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from vad_samples import evaluate, sample

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.evaluation.test_set import select_metrics
from projects.vad.evaluation import (
    VADDetectionMetric,
    VADMapMetric,
    VADMotionMetric,
    VADPlanningMetric,
    nuscenes_score,
)
from projects.vad.evaluation.nuscenes_boxes import attribute

NAMES = {
    'VADDetectionMetric': ['bbox'],
    'VADMapMetric': ['bbox', 'map'],
    'VADMotionMetric': ['bbox', 'motion'],
    'VADPlanningMetric': ['bbox', 'planning'],
}
CONFIGS = [dict(type=name, metric=metric) for name, metric in NAMES.items()]


@pytest.fixture(scope='module')
def nuscenes(tmp_path_factory) -> dict:
    root = small_tables.write(tmp_path_factory.mktemp('nuscenes'))
    return dict(version=small_tables.VERSION, data_root=str(root))


def detection(samples, nuscenes, **kwargs):
    return evaluate(VADDetectionMetric(**kwargs), samples, **nuscenes)


def test_bbox_selects_all_and_the_others_one():
    assert select_metrics(CONFIGS, ['bbox']) == CONFIGS
    for name, config in zip(('map', 'motion', 'planning'), CONFIGS[1:], strict=True):
        assert select_metrics(CONFIGS, [name]) == [config]


def test_perfect_predictions_are_perfect(nuscenes):
    found = detection([sample(0), sample(1)], nuscenes, range_axes='ego')
    prefix = 'pts_bbox_NuScenes/'
    assert found[prefix + 'mAP_present'] == pytest.approx(1)
    assert found[prefix + 'mAP'] == pytest.approx(0.3)  # three of ten classes
    assert found[prefix + 'car_AP_dist_0.5'] == pytest.approx(1)
    assert found[prefix + 'bicycle_AP_dist_4.0'] == 0 and found[prefix + 'bicycle_vel_err'] == 1
    for error in ('trans', 'scale', 'orient', 'vel'):
        assert found[f'{prefix}car_{error}_err'] == pytest.approx(0, abs=1e-4)
    assert found[prefix + 'pedestrian_attr_err'] == 0
    assert math.isnan(found[prefix + 'traffic_cone_vel_err'])
    assert found[prefix + 'NDS_present'] == pytest.approx(1, abs=1e-3)
    assert found[prefix + 'mATE'] == pytest.approx(0.7, abs=1e-4)


def test_range_along_global_axes_is_the_originals(nuscenes):
    """One of two true cars is in range; the other, out of the vehicle's range, is never found."""
    found = detection([sample(0)], nuscenes)
    assert found['pts_bbox_NuScenes/car_AP_dist_2.0'] == pytest.approx(0.4 / 0.9)
    tables = nuscenes_score.load_tables(*nuscenes.values())
    _, present = nuscenes_score.score(tables, {'sample-0': []}, 'global')
    assert present == ['car', 'pedestrian', 'traffic_cone']


def test_means_over_all_classes_are_the_devkits(nuscenes):
    samples = [sample(0, noise=0.7), sample(1, noise=0.7)]
    metric = VADDetectionMetric(range_axes='ego')
    metric.dataset_meta = dict(vad_samples.META, **nuscenes)
    metric.process({}, samples)
    submission = dict(result for _, result in metric.results)
    tables = nuscenes_score.load_tables(*nuscenes.values())
    metrics, _ = nuscenes_score.score(tables, submission, 'ego')
    ours = nuscenes_score.means(metrics, nuscenes_score.CONFIG.class_names)
    assert ours['mAP'] == pytest.approx(metrics.mean_ap) and 0 < ours['mAP'] < 0.3
    assert ours['NDS'] == pytest.approx(metrics.nd_score)
    assert {k: ours[k] for k in metrics.tp_errors} == pytest.approx(metrics.tp_errors)


def test_the_submission_is_kept(nuscenes, tmp_path):
    detection([sample(0)], nuscenes, jsonfile_prefix=str(tmp_path / 'out'))
    kept = json.loads((tmp_path / 'out' / 'results_nusc.json').read_text())
    car = kept['results']['sample-0'][0]
    expected = small_tables.annotation(0, 0)
    for key in ('translation', 'size', 'rotation'):
        assert car[key] == pytest.approx(expected[key], abs=1e-5)
    assert car['velocity'] == pytest.approx([0, 6], abs=1e-5)
    assert (car['attribute_name'], car['detection_score']) == ('vehicle.moving', 1.0)


def test_what_a_box_is_doing():
    assert attribute('bus', 0.1) == 'vehicle.stopped' and attribute('car', 0.1) == 'vehicle.parked'
    assert attribute('pedestrian', 3) == 'pedestrian.moving' and attribute('barrier', 3) == ''


def test_detection_says_what_it_lacks(nuscenes, tmp_path):
    with pytest.raises(UserError, match='needs version'):
        evaluate(VADDetectionMetric(), [sample(0)])
    with pytest.raises(UserError, match='sample.json does not exist'):
        detection([sample(0)], dict(nuscenes, data_root=str(tmp_path)))
    with pytest.raises(UserError, match='sample nobody is not in the tables'):
        detection([dict(sample(0), sample_idx='nobody')], nuscenes)
    with pytest.raises(UserError, match="class 'ufo' is not one of"):
        detection([sample(0)], nuscenes, classes=['ufo'])
    with pytest.raises(UserError, match="range_axes='sideways'"):
        VADDetectionMetric(range_axes='sideways')
    with pytest.raises(UserError, match='needs lidar2ego'):
        detection([dict(sample(0), lidar2ego=None)], nuscenes)


def test_a_perfect_map():
    found = evaluate(VADMapMetric(), [sample(0), sample(1)])
    prefix = 'NuscMap_chamfer/'
    assert found[prefix + 'mAP_present'] == pytest.approx(1)
    assert found[prefix + 'mAP'] == pytest.approx(2 / 3)
    assert found[prefix + 'boundary_AP'] == 0
    assert found[prefix + 'divider_AP_thr_0.5'] == pytest.approx(1)


def test_a_map_without_raw_vertices():
    plain = sample(0)
    plain.pop('map_vectors')
    plain['gt_map'] = {name: plain['pred_map'][name] for name in ('labels', 'pts')}
    assert evaluate(VADMapMetric(), [plain])['NuscMap_chamfer/mAP_present'] == pytest.approx(1)
    plain.pop('gt_map')
    with pytest.raises(UserError, match='needs gt_map.labels in every sample, and sample 0'):
        evaluate(VADMapMetric(), [plain])


def test_perfect_motion():
    found = evaluate(VADMotionMetric(), [sample(0), sample(1)])
    assert found['motion/EPA_car'] == found['motion/EPA_pedestrian'] == 1
    assert found['motion/ADE_car'] == found['motion/FDE_car'] == found['motion/MR_car'] == 0


def test_perfect_planning_beats_the_baselines():
    found = evaluate(VADPlanningMetric(), [sample(0), sample(1), sample(2, valid=False)])
    assert found['planning/num_valid'] == 2
    for s in (1, 2, 3):
        assert found[f'planning/plan_L2_{s}s'] == found[f'planning/plan_L2_at_{s}s'] == 0
        assert found[f'planning/baseline_still_L2_{s}s'] > 1
        off = math.hypot(0.5, 0.5)
        expected = pytest.approx(off * 2 * s)
        assert found[f'planning/baseline_const_vel_L2_at_{s}s'] == expected
        assert found[f'planning/baseline_const_vel_L2_{s}s'] == pytest.approx(off * (s + 0.5))
    assert found['planning/baseline_still_L2_at_3s'] > found['planning/baseline_still_L2_3s']


def test_planning_without_a_flag_reads_the_masks():
    samples = [sample(0), sample(1, valid=False)]
    for one in samples:
        one.pop('fut_valid_flag')
    assert evaluate(VADPlanningMetric(), samples)['planning/num_valid'] == 1


def test_nothing_found_is_no_crash(nuscenes):
    samples = [sample(0, 'none', valid=False), sample(1, 'none', valid=False)]
    evaluator = Evaluator([METRICS.build(config) for config in CONFIGS])
    evaluator.dataset_meta = dict(vad_samples.META, **nuscenes)
    for one in samples:
        evaluator.process([one])
    found = evaluator.evaluate(2)
    assert all(isinstance(value, float) for value in found.values())
    assert found['pts_bbox_NuScenes/mAP'] == found['NuscMap_chamfer/mAP'] == 0
    assert found['motion/EPA_car'] == 0 and math.isnan(found['motion/ADE_car'])
    assert found['planning/num_valid'] == 0 and math.isnan(found['planning/plan_L2_3s'])


def test_no_sample_at_all_is_no_crash(nuscenes):
    for config in CONFIGS:
        found = evaluate(METRICS.build(config), [], **nuscenes)
        assert all(math.isnan(v) or v in (0, 1) for v in found.values()), found


def test_a_table_for_each(nuscenes, capsys):
    from mmengine.logging import MMLogger

    MMLogger.get_instance('vad-tables', logger_name='vad-tables')
    evaluator = Evaluator([METRICS.build(config) for config in CONFIGS])
    evaluator.dataset_meta = dict(vad_samples.META, **nuscenes)
    evaluator.process([sample(0), sample(1)])
    evaluator.evaluate(2)
    shown = ''.join(capsys.readouterr())
    for word in ('ATE', 'construction_vehicle', 'NDS', 'recall 0.5 m', 'EPA', 'constant velocity'):
        assert word in shown


def test_metrics_name_what_a_sample_lacks():
    broken = dict(sample(0))
    broken.pop('pred_ego')
    with pytest.raises(UserError, match='VADPlanningMetric needs pred_ego.fut_preds'):
        evaluate(VADPlanningMetric(), [broken])
    with pytest.raises(UserError, match='needs classes'):
        VADMotionMetric().process({}, [sample(0)])
