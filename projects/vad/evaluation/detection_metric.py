"""nuScenes detection score and mAP."""

import json
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from mmengine.registry import METRICS

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.fileio import atomic_write, output_directory

from .base import SampleMetric
from .nuscenes_boxes import Boxes, annotations
from .nuscenes_score import (
    CONFIG,
    MAX_BOXES,
    RANGES,
    TP_METRICS,
    check_tables,
    load_tables,
    means,
    score,
)
from .tables import log_table

#: What the mean of each error is called.
MEAN_ERRORS = dict(zip(TP_METRICS, ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE'), strict=True))
AXES = ('global', 'ego')


@METRICS.register_module()
class VADDetectionMetric(SampleMetric):
    """nuScenes' detection score over VAD's range, for exactly the samples that were evaluated.

    True boxes come from nuScenes' tables, matching and averages from nuscenes-devkit. Every class
    counts within 30 m along x and 15 m along y of the vehicle. Predictions out of that range in the
    vehicle's frame are dropped first. Then the original measures the range of both, predictions and
    true boxes, along the axes of the **global** frame, however the vehicle stands; published
    numbers depend on it, so ``range_axes='global'`` is the default. With ``'ego'`` all is measured
    along the vehicle's axes, and perfect predictions score 1.

    Results, named ``pts_bbox_NuScenes/``: ``{class}_AP_dist_{0.5,1.0,2.0,4.0}``,
    ``{class}_{trans,scale,orient,vel,attr}_err``, ``mATE`` ``mASE`` ``mAOE`` ``mAVE`` ``mAAE``,
    ``mAP``, ``NDS``. As in the devkit a class without a true box has AP 0 and errors 1, and errors
    that have no meaning (velocity of a cone) are nan and left out of means. ``mAP_present`` and
    ``NDS_present`` average over the classes with true boxes alone, which says more on small data;
    they are nan if there are none.

    Args:
        score_thr: Predictions below it are dropped.
        range_axes: 'global' or 'ego'.
        classes: Names of the labels; None for the data set's.
        version: nuScenes' version, such as 'v1.0-trainval'; None for the data set's.
        data_root: Where nuScenes lies; None for the data set's.
        jsonfile_prefix: A directory to keep the submission in, as ``results_nusc.json``.
        **kwargs: Those of :class:`.base.SampleMetric`.

    Example::

        test_evaluator = [dict(type='VADDetectionMetric', metric=['bbox'])]
    """

    default_prefix = 'pts_bbox_NuScenes'
    headline: ClassVar[dict[str, str]] = {'mAP': 'max', 'NDS': 'max'}

    def __init__(
        self,
        score_thr: float = 0.2,
        range_axes: str = 'global',
        classes: Sequence[str] | None = None,
        version: str | None = None,
        data_root: str | None = None,
        jsonfile_prefix: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if range_axes not in AXES:
            raise UserError(f'VADDetectionMetric.range_axes={range_axes!r} must be one of {AXES}')
        self.score_thr = score_thr
        self.range_axes = range_axes
        self.class_names = classes
        self.version = version
        self.data_root = data_root
        self.jsonfile_prefix = jsonfile_prefix
        self._checked = False

    def tables(self) -> tuple[str, str]:
        """Version and directory of nuScenes' tables.

        Raises:
            UserError: nobody says which, or they aren't there.
        """
        meta = self.dataset_meta or {}
        found = {name: getattr(self, name) or meta.get(name) for name in ('version', 'data_root')}
        for name, value in found.items():
            if not value:
                raise UserError(
                    f'VADDetectionMetric needs {name}, which neither its arguments nor the data '
                    "set's metainfo give"
                )
        check_tables(**found)
        return found['version'], str(found['data_root'])

    def process_sample(self, sample: dict) -> tuple[str, list[dict]]:
        """The sample's token and its entries of the submission."""
        if not self._checked:  # before hours of inference, not after them
            self.tables()
            self.check_classes()
            self._checked = True
        boxes, scores, labels = (
            self.array(sample, 'pred_instances_3d', name)
            for name in ('bboxes_3d', 'scores_3d', 'labels_3d')
        )
        keep = (-scores).argsort(kind='stable')
        keep = keep[scores[keep] >= self.score_thr][:MAX_BOXES]
        names = self.classes(self.class_names)
        found = Boxes(boxes[keep], scores[keep], [names[i] for i in labels[keep]])
        token = self.meta(sample, 'sample_idx')
        poses = (np.asarray(self.meta(sample, name)) for name in ('lidar2ego', 'ego2global'))
        return token, annotations(found, *poses, token, RANGES)

    def check_classes(self) -> None:
        """Raise :class:`UserError` for a class that nuScenes' detection task doesn't have."""
        for name in self.classes(self.class_names):
            if name not in CONFIG.class_names:
                raise UserError(
                    f"class {name!r} is not one of nuScenes' detection classes: "
                    f'{", ".join(CONFIG.class_names)}'
                )

    def compute_metrics(self, results: list[tuple[str, list[dict]]]) -> dict[str, float]:
        """NDS, mAP, and AP and errors of every class."""
        submission = dict(results)
        if self.jsonfile_prefix:
            with (
                output_directory(self.jsonfile_prefix, 'jsonfile_prefix') as folder,
                atomic_write(folder / 'results_nusc.json') as file,
            ):
                json.dump(dict(meta=dict(use_camera=True), results=submission), file)
        metrics, present = score(load_tables(*self.tables()), submission, self.range_axes)
        figures = {}
        for name in CONFIG.class_names:
            for distance in CONFIG.dist_ths:
                figures[f'{name}_AP_dist_{distance}'] = metrics.get_label_ap(name, distance)
            for error in TP_METRICS:
                figures[f'{name}_{error}'] = metrics.get_label_tp(name, error)
        everything, some = means(metrics, CONFIG.class_names), means(metrics, present)
        figures.update({MEAN_ERRORS[error]: everything[error] for error in TP_METRICS})
        figures.update({name: everything[name] for name in ('NDS', 'mAP')})
        figures.update({f'{name}_present': some[name] for name in ('NDS', 'mAP')})
        self.log(figures, metrics.mean_dist_aps, everything, present, len(results))
        return figures

    def log(
        self,
        figures: dict[str, float],
        aps: dict[str, float],
        everything: dict[str, float],
        present: list[str],
        num_samples: int,
    ) -> None:
        """Write the devkit's two tables."""
        columns = ['class', 'AP', 'ATE', 'ASE', 'AOE', 'AVE', 'AAE']
        distances = CONFIG.dist_ths
        columns += [f'AP {distance} m' for distance in distances]
        rows = [
            [
                name,
                aps[name],
                *(figures[f'{name}_{error}'] for error in TP_METRICS),
                *(figures[f'{name}_AP_dist_{distance}'] for distance in distances),
            ]
            for name in CONFIG.class_names
        ]
        errors = [everything[error] for error in TP_METRICS]
        rows.append(['mean', figures['mAP'], *errors, *('' for _ in distances)])
        absent = [name for name in CONFIG.class_names if name not in present]
        notes = [f'no true box within range of: {", ".join(absent)}'] if absent else []
        notes.append(f'mAP {figures["mAP"]:.4f}, NDS {figures["NDS"]:.4f}')
        if absent and present:
            some = (figures['mAP_present'], figures['NDS_present'], len(present))
            notes.append('mAP {:.4f}, NDS {:.4f} over the {} classes that are there'.format(*some))
        title = f'detection, {num_samples:,} samples, range along {self.range_axes} axes'
        log_table(title, columns, rows, notes)
