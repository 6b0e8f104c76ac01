"""nuScenes' detection score, by nuscenes-devkit, over VAD's ranges and any set of samples."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common import loaders
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
)
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.constants import DETECTION_NAMES, TP_METRICS
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics
from pyquaternion import Quaternion

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.terminal import without_bars

from .nuscenes_boxes import Ranges

#: VAD's range of every class: metres along x and along y.
RANGES: Ranges = {name: (30.0, 15.0) for name in DETECTION_NAMES}
MAX_BOXES = 500
MEAN_AP_WEIGHT = 5
CONFIG = DetectionConfig(
    class_range={name: 30 for name in DETECTION_NAMES},
    dist_fcn='center_distance',
    dist_ths=[0.5, 1.0, 2.0, 4.0],
    dist_th_tp=2.0,
    min_recall=0.1,
    min_precision=0.1,
    max_boxes_per_sample=MAX_BOXES,
    mean_ap_weight=MEAN_AP_WEIGHT,
)
#: Errors that have no meaning for a class.
UNDEFINED = {
    'traffic_cone': ('attr_err', 'vel_err', 'orient_err'),
    'barrier': ('attr_err', 'vel_err'),
}


def check_tables(version: str, data_root: str) -> None:
    """Raise :class:`UserError` unless nuScenes' tables of ``version`` are under ``data_root``."""
    path = Path(data_root) / version / 'sample.json'
    if not path.is_file():
        raise UserError(
            f"detection is scored against nuScenes' own tables, and {path} does not exist; set "
            'version and data_root of VADDetectionMetric to the data set that was evaluated'
        )


@lru_cache(maxsize=1)
def load_tables(version: str, data_root: str) -> NuScenes:
    """nuScenes' tables, kept for the next evaluation: those of trainval take most of a minute."""
    return NuScenes(version=version, dataroot=data_root, verbose=False)


def score(
    tables: NuScenes, submission: Mapping[str, Sequence[dict]], axes: str, ranges: Ranges = RANGES
) -> tuple[DetectionMetrics, list[str]]:
    """Score a submission against the true boxes of exactly its samples.

    Args:
        tables: Loaded tables.
        submission: Entries of every sample, by token; the order decides between equal scores.
        axes: 'global' or 'ego': along which axes ``ranges`` are measured.
        ranges: By class name.

    Returns:
        The devkit's metrics, and the classes that have a true box within range.

    Raises:
        UserError: the tables don't know a sample.
    """
    known = {sample['token'] for sample in tables.sample}
    for token in submission:
        if token not in known:
            raise UserError(
                f'sample {token} is not in the tables of {tables.version} under {tables.dataroot}; '
                'set version and data_root to the data set that was evaluated'
            )
    with without_bars(loaders):
        true = load_gt_of_sample_tokens(tables, list(submission), DetectionBox, verbose=False)
    found = EvalBoxes.deserialize(submission, DetectionBox)
    true, found = (in_range(tables, boxes, axes, ranges) for boxes in (true, found))
    metrics = DetectionMetrics(CONFIG)
    for name in CONFIG.class_names:
        curves = {
            distance: accumulate(true, found, name, CONFIG.dist_fcn_callable, distance)
            for distance in CONFIG.dist_ths
        }
        for distance, curve in curves.items():
            ap = calc_ap(curve, CONFIG.min_recall, CONFIG.min_precision)
            metrics.add_label_ap(name, distance, ap)
        for error in TP_METRICS:
            defined = error not in UNDEFINED.get(name, ())
            curve = curves[CONFIG.dist_th_tp]
            value = calc_tp(curve, CONFIG.min_recall, error) if defined else np.nan
            metrics.add_label_tp(name, error, value)
    counted = {box.detection_name for box in true.all}
    return metrics, [name for name in CONFIG.class_names if name in counted]


def in_range(tables: NuScenes, boxes: EvalBoxes, axes: str, ranges: Ranges) -> EvalBoxes:
    """The boxes within range that hold points and stand in no bicycle rack."""
    boxes = add_center_dist(tables, boxes)
    for token in boxes.sample_tokens:
        turn = np.eye(3) if axes == 'global' else global2ego(tables, token)
        boxes.boxes[token] = [
            box
            for box in boxes[token]
            if (np.abs(turn @ box.ego_translation)[:2] < ranges[box.detection_name]).all()
        ]
    if boxes.all:
        everywhere = {name: np.inf for name in CONFIG.class_names}
        boxes = filter_eval_boxes(tables, boxes, everywhere, verbose=False)
    return boxes


def global2ego(tables: NuScenes, token: str) -> np.ndarray:
    """Rotation ``(3, 3)`` from the global frame to the vehicle's at a sample."""
    lidar = tables.get('sample_data', tables.get('sample', token)['data']['LIDAR_TOP'])
    pose = tables.get('ego_pose', lidar['ego_pose_token'])
    return Quaternion(pose['rotation']).rotation_matrix.T


def means(metrics: DetectionMetrics, names: Collection[str]) -> dict[str, float]:
    """mAP, the mean errors and NDS over some classes; nan where there are none.

    Args:
        metrics: What :func:`score` returned.
        names: The classes to average over; over all of them these are the devkit's own figures.
    """
    figures = {'mAP': np.nan}
    if names:
        figures['mAP'] = float(np.mean([metrics.mean_dist_aps[name] for name in names]))
    scores = []
    for error in TP_METRICS:
        values = [metrics.get_label_tp(name, error) for name in names]
        values = [value for value in values if not np.isnan(value)]
        figures[error] = float(np.mean(values)) if values else np.nan
        if values:
            scores.append(max(0.0, 1.0 - figures[error]))
    weight = MEAN_AP_WEIGHT + len(scores)
    figures['NDS'] = (MEAN_AP_WEIGHT * figures['mAP'] + sum(scores)) / weight
    return figures
