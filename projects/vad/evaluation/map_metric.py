"""Average precision of map lines by chamfer distance."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from mmengine.registry import METRICS

from .average_precision import average_precision, true_positives
from .base import SampleMetric
from .chamfer import is_line, resample, score_matrix
from .tables import log_table, mean, ratio


@METRICS.register_module()
class VADMapMetric(SampleMetric):
    """Map lines: average precision by chamfer distance, as MapTR and VAD report it.

    Predicted and true lines are resampled to 100 points. True lines are the clipped vertices of the
    map (``map_vectors`` of the metainfo), or ``gt_map.pts`` where a sample has none. Results, named
    ``NuscMap_chamfer/``:

    - ``{class}_AP_thr_{t}``: at each threshold in metres
    - ``{class}_AP``: the mean over thresholds
    - ``mAP``: the mean over classes and thresholds, where a class without any true line counts 0 as
      in the original
    - ``mAP_present``: the mean over the classes that have true lines; nan if none has

    Args:
        thresholds: Largest chamfer distances in metres.
        map_classes: Names of the labels; None for the data set's.
        **kwargs: Those of :class:`.base.SampleMetric`.

    Example::

        test_evaluator = [dict(type='VADMapMetric', metric=['bbox', 'map'])]
    """

    default_prefix = 'NuscMap_chamfer'
    headline: ClassVar[dict[str, str]] = {'mAP': 'max'}

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5, 1.0, 1.5),
        map_classes: Sequence[str] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.thresholds = [float(t) for t in thresholds]
        self.class_names = map_classes

    def true_lines(self, sample: dict) -> list[tuple[int, np.ndarray]]:
        """Label and vertices ``(k, 2)`` of every true line."""
        if sample.get('map_vectors') is not None:
            vectors = sample['map_vectors']
            return [(int(v['label']), np.asarray(v['pts'])[:, :2]) for v in vectors]
        labels = self.array(sample, 'gt_map', 'labels')
        return list(zip(labels.tolist(), self.array(sample, 'gt_map', 'pts'), strict=True))

    def process_sample(self, sample: dict) -> dict[str, dict]:
        """For each class: scores, which are right at each threshold, and true lines."""
        scores, labels, points = (
            self.array(sample, 'pred_map', name) for name in ('scores', 'labels', 'pts')
        )
        true = [(label, line) for label, line in self.true_lines(sample) if is_line(line)]
        found = {}
        for label, name in enumerate(self.classes(self.class_names, 'map_classes')):
            mine = scores[labels == label]
            lines = [resample(p) if is_line(p) else p * np.nan for p in points[labels == label]]
            matrix = score_matrix(lines, [resample(line) for k, line in true if k == label])
            found[name] = dict(
                scores=mine,
                right=[true_positives(matrix, mine, t) for t in self.thresholds],
                num_true=matrix.shape[1],
            )
        return found

    def compute_metrics(self, results: list[dict[str, dict]]) -> dict[str, float]:
        """AP of every class at every threshold, and their means."""
        names = self.classes(self.class_names, 'map_classes')
        aps, rows, present = {}, [], []
        for name in names:
            own = [result[name] for result in results]
            scores = np.concatenate([r['scores'] for r in own] or [np.zeros(0)])
            num_true = sum(r['num_true'] for r in own)
            rows.append([name, num_true, len(scores)])
            aps[name] = []
            for i in range(len(self.thresholds)):
                right = np.concatenate([r['right'][i] for r in own] or [np.zeros(0, bool)])
                aps[name].append(average_precision(right, scores, num_true))
                rows[-1] += [ratio(right.sum(), num_true), aps[name][-1]]
            rows[-1].append(mean(aps[name]))
            if num_true:
                present.append(name)
        figures = {f'{name}_AP': mean(aps[name]) for name in names}
        figures['mAP'] = mean([figures[f'{name}_AP'] for name in names])
        figures['mAP_present'] = mean([figures[f'{name}_AP'] for name in present])
        for name in names:
            for threshold, ap in zip(self.thresholds, aps[name], strict=True):
                figures[f'{name}_AP_thr_{threshold}'] = ap
        columns = ['class', 'gts', 'dets']
        columns += [f'{what} {t} m' for t in self.thresholds for what in ('recall', 'AP')]
        at = [mean([aps[name][i] for name in names]) for i in range(len(self.thresholds))]
        rows.append(['mAP', '', '', *(x for ap in at for x in ('', ap)), figures['mAP']])
        notes = [f'{n}: no true line, AP is 0 and counts in mAP' for n in names if n not in present]
        log_table(f'map, {len(results):,} samples', [*columns, 'AP'], rows, notes)
        return figures
