"""EPA, ADE, FDE and miss rate of cars and pedestrians."""

from collections.abc import Sequence
from typing import ClassVar

from mmengine.registry import METRICS

from .base import SampleMetric
from .motion import COUNTERS, GROUPS, count, predicted_agents, true_agents
from .tables import log_table, ratio

#: A false alarm costs half of what a hit brings.
FALSE_ALARM = 0.5


@METRICS.register_module()
class VADMotionMetric(SampleMetric):
    """Motion forecasts of detected cars (with trucks, buses, trailers) and pedestrians.

    Counters (:func:`.motion.count`) are summed over all samples, then ``motion/``

    - ``EPA_{car,pedestrian}``: (hits - 0.5 x false alarms) / true agents with six future steps;
      at most 1, and below 0 when false alarms prevail
    - ``ADE_``, ``FDE_``: mean and final displacement in metres, of the best of the modes
    - ``MR_``: the share of final displacements above 2 m

    A figure with nothing to divide by is nan.

    Args:
        score_thr: Predictions must score above it.
        classes: Names of the labels; None for the data set's.
        **kwargs: Those of :class:`.base.SampleMetric`.

    Example::

        test_evaluator = [dict(type='VADMotionMetric', metric=['bbox', 'motion'])]
    """

    default_prefix = 'motion'
    headline: ClassVar[dict[str, str]] = {'minADE_car': 'min', 'EPA_car': 'max'}

    def __init__(
        self, score_thr: float = 0.6, classes: Sequence[str] | None = None, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.score_thr = score_thr
        self.class_names = classes

    def process_sample(self, sample: dict) -> dict[str, float]:
        """Sixteen counters."""
        names = ('bboxes_3d', 'scores_3d', 'labels_3d', 'trajs_3d')
        predicted = [self.array(sample, 'pred_instances_3d', name) for name in names]
        names = ('bboxes_3d', 'labels_3d', 'attr_labels')
        true = [self.array(sample, 'gt_instances_3d', name) for name in names]
        return count(
            predicted_agents(*predicted, self.score_thr),
            true_agents(*true),
            self.classes(self.class_names),
        )

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """EPA, ADE, FDE and MR of each group."""
        sums = {f'{c}_{g}': sum(r[f'{c}_{g}'] for r in results) for c in COUNTERS for g in GROUPS}
        figures = {
            f'EPA_{g}': ratio(sums[f'hit_{g}'] - FALSE_ALARM * sums[f'fp_{g}'], sums[f'gt_{g}'])
            for g in GROUPS
        }
        for name, over in (('ADE', 'cnt_ade'), ('FDE', 'cnt_fde'), ('MR', 'cnt_fde')):
            for group in GROUPS:
                figures[f'{name}_{group}'] = ratio(sums[f'{name}_{group}'], sums[f'{over}_{group}'])
        columns = (
            'class',
            'EPA',
            'minADE',
            'minFDE',
            'MR',
            'gt',
            'matched',
            'hits',
            'false alarms',
        )
        rows = [
            [
                group,
                *(figures[f'{name}_{group}'] for name in ('EPA', 'ADE', 'FDE', 'MR')),
                *(int(sums[f'{name}_{group}']) for name in ('gt', 'cnt_ade', 'hit', 'fp')),
            ]
            for group in GROUPS
        ]
        empty = [group for group in GROUPS if not sums[f'gt_{group}']]
        notes = [f'{group}: no true agent with six future steps' for group in empty]
        log_table(f'motion, {len(results):,} samples', columns, rows, notes)
        return figures
