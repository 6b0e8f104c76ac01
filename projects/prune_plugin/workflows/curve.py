"""A curve in one run: a model pruned at several ratios and by several methods, without training."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.config import Config

from ..checkpoints.model_loading import Loaded, load_model
from ..common.device import best_device
from ..common.distributed import barrier, on_rank_0
from ..common.errors import InfeasibleBudgetError, UserError
from ..common.progress import expect, forget, step
from ..common.terminal import hidden_from_terminal
from ..evaluation.environment import environment
from ..evaluation.profiling import latency_note, profile
from ..evaluation.test_set import TestSet, headline
from ..methods.pruners import DataFactory, Plan, Pruned, Pruner, ScoredUnits
from ..methods.pruners.execution import check_in_memory
from ..methods.pruners.layer_progress import LayerProgress
from ..training.dry_build import try_metrics
from .curve_series import Series, series_of
from .evaluation_cache import cached_results
from .expected_steps import curve_steps, guessed
from .finished_layers import finished_steps
from .options import PruneOptions
from .prune import check_config, data_factory, renew_batch_norms, score
from .report_building import start_report
from .reports import evaluation_bar, format_point, plot_curves, write_curve
from .run_fingerprint import evaluation_fingerprint, pruning_settings
from .run_log import open_log
from .save_results import save_pruned, write_record

NOTES = {
    'ratio': "fraction to remove that was asked for; removed: what it came to, by the budget's own "
    'cost; all models as pruned, without training',
    'flops': 'two per multiply-accumulate, one sample',
    'dense_latency_ms': 'of the dense model, timed in turn with the pruned one: compare the two',
    'out_of_reach': 'why a series has no such point',
}
#: Seconds for timing a pruned model and the dense one in turn, at least.
TIMING = 1.0


@dataclass
class CurveOptions:
    """What a curve is asked for beside the config.

    Attributes:
        checkpoint: The model's weights; None: freshly initialised.
        output_dir: Where results go; must exist.
        ratios: Fractions removed, each in (0, 1).
        criteria: Criteria to compare; none: the config's.
        allocators: Allocators to compare; none: the config's.
        baselines: ``'random'`` scores and ``'uniform'`` ratios, to compare with.
        keep: Checkpoints to keep: ``'all'``; ``'best'``, of each ratio the one whose first headline metric
            is best (without metrics the first series'); or ``'none'``.
        from_table: Score table to read instead of computing the scores of the config's criterion.
    """

    checkpoint: str | None
    output_dir: Path
    ratios: Sequence[float]
    criteria: Sequence[str] = ()
    allocators: Sequence[str] = ()
    baselines: Sequence[str] = ()
    keep: str = 'best'
    from_table: str | None = None


@dataclass
class Point:
    """A model to be made and measured.

    Attributes:
        row: What ``curve.json`` says of it; its figures are filled in.
        pruner: With the ratio.
        plan: What is to go.
        progress: Where finished steps are kept; None: there are none.
    """

    row: dict[str, Any]
    pruner: Pruner
    plan: Plan
    progress: LayerProgress | None = None


def draw_curve(cfg: Config, pruner: Pruner, options: CurveOptions) -> dict[str, Any]:
    """Prune at each ratio, by each method, evaluate, and write ``curve.csv``, ``.json`` and ``.png``.

    Scores are computed once. All ranks call it; rank 0 alone writes, after every evaluation. What
    ``curve.json`` in the output directory holds of the same model on the same data isn't made again.

    Args:
        cfg: The config.
        pruner: From :func:`.prune.pruner_from_config`; its ratio doesn't count.
        options: See :class:`CurveOptions`.

    Returns:
        The content of ``curve.json``.

    Raises:
        UserError: bad input, or a ratio that the first method can't reach; nothing has been written then.
    """
    check_in_memory(pruner.execution, 'a curve')
    series = series_of(
        pruner, options.ratios, options.criteria, options.allocators, options.baselines
    )
    expect([guessed('load')])
    with step('load'):
        loaded, data = load_model(cfg, options.checkpoint, best_device()), data_factory(cfg, pruner)
    for one in series:
        check_config(cfg, one.pruner, loaded.model, one.own_scores and bool(options.from_table))
        one.pruner.check(loaded.model, data)
    with step('read test data'):
        test_set = TestSet(cfg)
        try_metrics('test_evaluator', test_set.metrics)
    given = bool(options.from_table)
    expect(curve_steps(series, options.ratios, given, test_set, loaded.model))
    rows, points = plan_all(cfg, series, loaded, options, data)
    fingerprint = evaluation_fingerprint(
        cfg,
        options.checkpoint,
        None,
        prune_cfg=without_methods(pruner.to_dict()),
        input_shape=pruner.profile.input_shape,
    )
    known = on_rank_0(
        lambda: cached_results(options.output_dir / 'curve.json', fingerprint, 'params')
    )
    open_log(options.output_dir, cfg)
    report = {
        'asked': {**pruner.asked, 'ratio': None, 'ratios': list(options.ratios)},
        'series': [one.label for one in series],
        'headline': {},
        'dense': None,
        'rows': rows,
        'settings': fingerprint.parts,
        'config': cfg.filename,
        'checkpoint': options.checkpoint,
        'prune_cfg': pruner.to_dict(),
        'command': sys.argv,
        'notes': {**NOTES, 'latency_ms': latency_note(pruner.profile, loaded.model)},
        'environment': environment(),
    }
    Curve(cfg, loaded, test_set, data, options, report, known).run(points)
    for progress in filter(None, {id(p.progress): p.progress for p in points}.values()):
        progress.clear()
    if dist.is_main_process():
        plot_curves({'': report}, options.output_dir / 'curve.png')
    barrier()
    return report


def without_methods(prune_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all series share; what they choose is told by a plan's digest."""
    shared = {k: v for k, v in prune_cfg.items() if k not in ('criterion', 'allocator')}
    return pruning_settings(shared)


def plan_all(
    cfg: Config,
    series: Sequence[Series],
    loaded: Loaded,
    options: CurveOptions,
    data: DataFactory,
) -> tuple[list[dict[str, Any]], list[Point]]:
    """Score once per criterion, and plan every ratio: all rows, and those that can be measured.

    Steps of rescoring are shared by the ratios that they lead to.

    Raises:
        UserError: the first method can't reach a ratio, or would remove nothing at it.
    """
    rows, points, scored = [], [], {}
    for one in series:
        steps = finished_steps(cfg, one.pruner, options.checkpoint, options.output_dir)
        for ratio in options.ratios:
            pruner = one.pruner.at(ratio)
            key = (one.criterion, ratio if one.reads_ratio else None)
            if key not in scored:
                table = options.from_table if one.own_scores else None
                asked = PruneOptions(options.checkpoint, options.output_dir, from_table=table)
                scored[key] = score(pruner, loaded, asked, data)
                scored[key].progress = steps
            row = dict(
                series=one.label, ratio=ratio, removed=None, params=None, flops=None,
                latency_ms=None, dense_latency_ms=None, metrics=None, digest='', checkpoint=None,
                out_of_reach=None,
            )  # fmt: skip
            rows.append(row)
            try:
                plan = pruner.plan_from(loaded.model, own_cost(scored[key], one))
            except InfeasibleBudgetError as error:
                if one is series[0]:
                    raise UserError(f'--ratios {ratio:g}: {error}') from error
                row['out_of_reach'] = str(error)
                continue
            if not plan.digest and one is series[0]:
                raise UserError(f'--ratios {ratio:g} would remove nothing of this model; raise it')
            row['digest'] = plan.digest or f'nothing of {one.label}'
            points.append(Point(row, pruner, plan, steps))
    return rows, points


def own_cost(scored: ScoredUnits, series: Series) -> ScoredUnits:
    """Scores with a place for costs of their own: an allocator's plan may be what they are measured on."""
    return series.costed.setdefault(id(scored), replace(scored, cost=None))


@dataclass
class Curve:
    """The measurements, one after the other, and what they have found so far.

    Attributes:
        cfg: The config.
        loaded: The dense model; only copies of it are pruned.
        test_set: What to evaluate on.
        data: Gives calibration batches.
        options: See :class:`CurveOptions`.
        report: The content of ``curve.json``; its rows are filled in.
        known: Results by digest, see :func:`cached_results`.
    """

    cfg: Config
    loaded: Loaded
    test_set: TestSet
    data: DataFactory
    options: CurveOptions
    report: dict[str, Any]
    known: dict[str, dict]

    def run(self, points: Sequence[Point]) -> None:
        """Measure the dense model and every point, and keep the checkpoints that are asked for."""
        report, dense = self.report, self.loaded.model
        waiting = [p for p in points if p.row['digest'] not in self.known]
        settings = points[0].pruner.profile
        self.settings = replace(settings, seconds=max(TIMING, settings.seconds / len(points)))
        forget('dense', '' in self.known)
        forget('point', len(points) - len(waiting))
        with evaluation_bar(len(waiting) + ('' not in self.known), 'pruning at each ratio') as show:
            if '' not in self.known:
                size = on_rank_0(lambda: profile([dense], self.settings, latency=False)[0])
                with step('dense'), hidden_from_terminal():
                    metrics = self.test_set.evaluate(dense, 'dense', progress=False)
                self.known[''] = dict(params=size['params'], flops=size['flops'], metrics=metrics)
                show('')
            report['dense'] = self.known['']
            report['headline'] = headline(self.test_set.metrics, report['dense']['metrics'] or {})
            for row in (p.row for p in points if p.row['digest'] in self.known):
                self.fill(row)
            for point in points:
                new = point.row['digest'] not in self.known
                with step('point') if new else nullcontext(), hidden_from_terminal():
                    self.one(point)
                self.write()
                if new:
                    show(format_point(point.row, report))

    def one(self, point: Point) -> None:
        """Make, measure and keep one model, as far as that isn't done."""
        row, folder = point.row, self.folder_of(point.row)
        pruned = None
        if row['digest'] not in self.known:
            pruned = self.pruned(point)
            self.known[row['digest']] = self.measure(pruned, point)
        self.fill(row)
        if not self.wanted(row):
            return
        stem = list(folder.glob('*_pruned.pth')) if (folder / 'report.json').exists() else []
        if not stem:
            stem = [self.save(point, pruned or self.pruned(point), folder)]
        self.drop_others(row)
        row['checkpoint'] = str(stem[0])

    def fill(self, row: dict[str, Any]) -> None:
        """Put what is known into a row."""
        names = ('removed', 'params', 'flops', 'latency_ms', 'dense_latency_ms', 'metrics')
        found = self.known[row['digest']]
        row.update({name: found[name] for name in names})

    def pruned(self, point: Point) -> Pruned:
        """Prune a copy."""
        pruner = point.pruner
        model = deepcopy(self.loaded.model)
        pruned = pruner.apply(model, point.plan, self.data, progress=point.progress)
        if pruner.calibration.recalibrate_bn:
            renew_batch_norms(self.cfg, pruner, [pruned.model])
        return pruned

    def measure(self, pruned: Pruned, point: Point) -> dict[str, Any]:
        """A row's figures."""
        models = [self.loaded.model, pruned.model]
        timed = point.pruner.removes_units
        dense, size = on_rank_0(lambda: profile(models, self.settings, latency=timed))
        label = f'{point.row["series"]} at {point.row["ratio"]:g}'
        return dict(
            removed=(pruned.result or point.plan.result).achieved or 0.0,
            params=size['params'],
            flops=size['flops'],
            latency_ms=size['latency_ms'],
            dense_latency_ms=dense['latency_ms'],
            metrics=self.test_set.evaluate(pruned.model, label, progress=False),
        )

    def folder_of(self, row: Mapping[str, Any]) -> Path:
        """Where a point's checkpoint goes."""
        words = row['series'].lower().replace(' + ', '_').split()
        return self.options.output_dir / f'{"_".join(words)}_{row["ratio"]:g}'

    def wanted(self, row: Mapping[str, Any]) -> bool:
        """Whether a point's checkpoint is to be kept, as far as is known by now."""
        if self.options.keep != 'best':
            return self.options.keep == 'all'
        name, better = next(iter(self.report['headline'].items()), ('', 'max'))
        sign = 1 if better == 'max' else -1
        measured = [r for r in self.same_ratio(row) if r['metrics'] and name in r['metrics']]
        if not measured:
            return row['series'] == self.report['series'][0]
        return row is max(measured, key=lambda r: sign * r['metrics'][name])

    def same_ratio(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a ratio."""
        return [r for r in self.report['rows'] if r['ratio'] == row['ratio']]

    def drop_others(self, row: Mapping[str, Any]) -> None:
        """Remove the checkpoints that were the best of their ratio so far."""
        if self.options.keep != 'best':
            return
        for other in (r for r in self.same_ratio(row) if r is not row):
            if other['checkpoint'] and dist.is_main_process():
                shutil.rmtree(self.folder_of(other), ignore_errors=True)
            other['checkpoint'] = None
        barrier()

    def save(self, point: Point, pruned: Pruned, folder: Path) -> Path:
        """Write a point's checkpoint and its report into a folder of its own."""
        row, cfg = point.row, self.cfg
        dense = self.report['dense']
        sizes = [
            dict(params=dense['params'], flops=dense['flops'], latency_ms=row['dense_latency_ms']),
            {name: row[name] for name in ('params', 'flops', 'latency_ms')},
        ]
        options = PruneOptions(self.options.checkpoint, folder)
        if dist.is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
        barrier()
        report = start_report(
            cfg, point.pruner, options, self.loaded.model, point.plan, sizes, pruned.zeros,
            pruned.result,
        )  # fmt: skip
        report.headline = dict(self.report['headline'])
        report.dense.metrics, report.pruned.metrics = dense['metrics'], row['metrics']
        path = save_pruned(cfg, point.pruner, self.loaded, pruned, report, options)
        if dist.is_main_process():
            write_record(report, folder)
        return path

    def write(self) -> None:
        """Write the report as far as it goes."""
        if dist.is_main_process():
            write_curve(self.report, self.options.output_dir)
