"""Planning: distance to the driven path, collisions, and two paths that need no learning."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from mmengine.registry import METRICS

from .base import SampleMetric
from .occupancy import obstacles, occupied
from .planning import SECONDS, collisions, constant_velocity, distances, keep_still, readings
from .tables import log_table, mean

ROWS = {
    'plan_L2': 'L2 (m)',
    'baseline_still_L2': 'L2 (m) of keeping still',
    'baseline_const_vel_L2': 'L2 (m) of constant velocity',
    'plan_obj_box_col': 'collision rate',
    'plan_obj_col': 'collision rate, one cell (*)',
}
VALUES = tuple(ROWS)


@METRICS.register_module()
class VADPlanningMetric(SampleMetric):
    """The planned path of the given command, over the samples with six future key frames.

    Results, named ``planning/``, for t = 1, 2, 3 seconds (2, 4, 6 steps):

    - ``plan_L2_{t}s``: metres from the driven path, **mean over all steps up to t** (VAD's and
      ST-P3's reading)
    - ``plan_L2_at_{t}s``: metres at time t (UniAD's reading; larger)
    - ``plan_obj_box_col_{t}s``: the share of steps up to t at which the vehicle's footprint meets
      another agent's (the collision rate that VAD publishes); steps at which the driven path
      collides too count as none
    - ``plan_obj_box_col_at_{t}s``: the same for the step at t alone
    - ``plan_obj_col_{t}s``, ``plan_obj_col_at_{t}s``: the original's single-cell rate, which looks
      25 m away; for comparison with the original only
    - ``baseline_still_L2_…``, ``baseline_const_vel_L2_…``: what standing still, and going on as in
      the last half second, would score on the same samples, in both readings
    - ``num_valid``: samples that were counted

    With no such sample all but the last are nan.

    Args:
        classes: Names of the labels; None for the data set's.
        **kwargs: Those of :class:`.base.SampleMetric`.

    Example::

        test_evaluator = [dict(type='VADPlanningMetric', metric=['bbox', 'planning'])]
    """

    default_prefix = 'planning'
    headline: ClassVar[dict[str, str]] = {'plan_L2_3s': 'min', 'plan_obj_box_col_3s': 'min'}

    def __init__(self, classes: Sequence[str] | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.class_names = classes

    def process_sample(self, sample: dict) -> dict[str, float] | None:
        """Readings of one sample; None without six future key frames."""
        valid = sample.get('fut_valid_flag')
        if valid is None:
            valid = self.array(sample, 'gt_ego', 'fut_masks').all()
        if not valid:
            return None
        true = self.array(sample, 'gt_ego', 'fut_trajs').cumsum(axis=0, dtype=np.float32)
        command = self.array(sample, 'gt_ego', 'fut_cmd').reshape(-1).argmax()
        path = self.array(sample, 'pred_ego', 'fut_preds')[command]
        path = path.cumsum(axis=0, dtype=np.float32)
        history = self.array(sample, 'gt_ego', 'his_trajs')
        boxes, labels, attributes = (
            self.array(sample, 'gt_instances_3d', name)
            for name in ('bboxes_3d', 'labels_3d', 'attr_labels')
        )
        drawn = obstacles(labels, self.classes(self.class_names))
        grid = occupied(boxes[drawn], attributes[drawn])
        box, point = collisions(path, true, grid)
        return readings(
            {
                'plan_L2': distances(path, true),
                'baseline_still_L2': distances(keep_still(), true),
                'baseline_const_vel_L2': distances(constant_velocity(history), true),
                'plan_obj_box_col': box,
                'plan_obj_col': point,
            }
        )

    def compute_metrics(self, results: list[dict[str, float] | None]) -> dict[str, float]:
        """Means over the valid samples."""
        valid = [result for result in results if result is not None]
        names = [f'{v}{at}_{s}s' for v in VALUES for at in ('', '_at') for s in SECONDS]
        figures = {name: mean([result[name] for result in valid]) for name in names}
        figures['num_valid'] = float(len(valid))
        columns = ('', *(f'mean to {s} s' for s in SECONDS), 'average')
        columns = (*columns, *(f'at {s} s' for s in SECONDS), 'average')
        rows = []
        for value, label in ROWS.items():
            rows.append([label])
            for at in ('', '_at'):
                three = [figures[f'{value}{at}_{s}s'] for s in SECONDS]
                rows[-1] += [*three, mean(three)]
        notes = ['(*) of a cell 25 m away, as in the original: compare it, do not interpret it']
        if not valid:
            notes.append('no sample has six future key frames, so there is nothing to average')
        elif math.isnan(figures['plan_L2_3s']):
            notes.append('nan: a predicted or true path holds nan')
        title = f'planning, {len(valid):,} of {len(results):,} samples have six future key frames'
        log_table(title, columns, rows, notes)
        return figures
