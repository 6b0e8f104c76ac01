"""Looking for the largest ratio at which a metric still holds."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from ..common.bisection import bisect_largest
from ..common.distributed import barrier, on_rank_0
from ..common.errors import InfeasibleBudgetError, UserError
from ..common.json_csv import plain
from ..common.terminal import hidden_from_terminal
from ..evaluation.environment import environment
from ..evaluation.metrics import better_direction, resolve_metric
from ..evaluation.profiling import profile
from ..evaluation.test_set import TestSet
from ..methods.budgets.metric import MetricBudget, within, worse_by
from ..methods.pruners import Pruner
from .evaluation_cache import cached_results
from .options import PruneOptions, SearchResult
from .reports.search import plot_search, write_search
from .run_fingerprint import evaluation_fingerprint, pruning_settings
from .run_report import RunReport

NOTES = {
    'ratio': 'fraction to remove that was asked for in a trial; removed: what it came to, by the '
    "budget's own cost",
    'drop': 'how much worse the metric is than in the dense model, in its own unit; below 0: better',
    'holds': 'whether the metric is no worse than the limit; all models as pruned, without training',
}
#: What of a search's report stands elsewhere in a run's.
OWN_FILE = ('settings', 'config', 'checkpoint', 'command', 'environment')


@dataclass
class Trial:
    """A model pruned at one ratio, yet to be made.

    Attributes:
        digest: Trials with equal ones give equal models; that of the dense model is empty.
        build: Makes it, and gives the fraction removed with it; the dense model stays as it is.
    """

    digest: str
    build: Callable[[], tuple[nn.Module, float]]


class Search:
    """The trials of a pruner whose budget is searched; all ranks make them together.

    Args:
        cfg: The config.
        pruner: The pruner.
        budget: Its budget, which is searched.
        options: See :class:`PruneOptions`. What ``search.json`` in its ``output_dir`` holds of the same
            model on the same data isn't evaluated again; a dry run writes no files.

    Raises:
        UserError: there is nothing to evaluate on.
    """

    def __init__(self, cfg: Config, pruner: Pruner, budget: MetricBudget, options: PruneOptions):
        self.cfg, self.pruner, self.budget, self.options = cfg, pruner, budget, options
        self.test_set = TestSet(cfg, budget.num_samples, budget.split)
        if self.test_set.missing:
            raise UserError(
                f'prune_cfg.budget.type {budget.quantity!r} evaluates models, but '
                f'{self.test_set.missing}'
            )
        self.path = options.output_dir / 'search.json'
        whole = (cfg.get('prune_cfg') or Config()).to_dict()
        fingerprint = evaluation_fingerprint(
            cfg,
            options.checkpoint,
            budget.num_samples,
            older=old_search(whole, budget),
            split=budget.split,
            prune_cfg=pruning_settings(whole),
            input_shape=pruner.profile.input_shape,
        )
        self.known = on_rank_0(lambda: cached_results(self.path, fingerprint))
        self.report: dict[str, Any] = {
            'asked': budget.asked,
            'metric': None,
            'better': None,
            'dense': None,
            'limit': None,
            'high': None,
            'ratio': None,
            'too_much': None,
            'rows': [],
            'notes': dict(NOTES),
            'settings': fingerprint.parts,
            'config': cfg.filename,
            'checkpoint': options.checkpoint,
            'command': sys.argv,
            'environment': environment(),
        }

    def run(self, model: nn.Module, trial_at: Callable[[Pruner], Trial]) -> SearchResult:
        """Find the ratio; ``search.json``, ``search.csv`` and ``search.png`` tell of all trials.

        Args:
            model: The dense model.
            trial_at: The trial of a pruner with a ratio.

        Raises:
            UserError: the evaluation gives no such metric, or no ratio that was tried holds.
        """
        budget, report, self.trial_at = self.budget, self.report, trial_at
        self.begin(model)
        report['high'] = high = self.reachable()
        tolerance, trials = budget.tolerance, budget.trials
        ratio = bisect_largest(self.holds, budget.low, high, tolerance, trials)
        rows = report['rows']
        if ratio is not None:
            above = [row['ratio'] for row in rows if not row['holds'] and row['ratio'] > ratio]
            report['ratio'], report['too_much'] = ratio, min(above, default=None)
        self.write()
        if dist.is_main_process() and not self.options.dry_run:
            plot_search(report, self.path.with_suffix('.png'))
        barrier()
        if ratio is None:
            self.give_up(min(rows, key=lambda row: row['ratio']))
        print_log(f'search: ratio {ratio:.4g} it is', 'current')
        return self.found(next(row for row in rows if row['ratio'] == ratio))

    def begin(self, model: nn.Module) -> None:
        """Evaluate the dense model, and say what follows from it."""
        if '' not in self.known:
            self.known[''] = self.measure(model, 'dense')
        report, budget = self.report, self.budget
        dense = report['dense'] = self.known['']
        self.write()
        metrics = dense['metrics']
        name = report['metric'] = resolve_metric(budget.metric, metrics, 'prune_cfg.budget.metric')
        if budget.lower_is_better is None:
            better = better_direction(name, self.test_set.metrics, metrics)
        else:
            better = 'min' if budget.lower_is_better else 'max'
        report['better'] = better
        report['limit'] = limit = budget.limit(metrics[name], better)
        if budget.relative and not metrics[name]:
            raise UserError(
                f'prune_cfg.budget.relative: {name} of the dense model is 0, and so is any part of it; '
                'give max_drop in its own unit'
            )
        higher = better == 'max'
        print_log(
            f'search: the largest ratio of {budget.of.quantity} in [{budget.low:g}, {budget.high:g}] at '
            f'which {name} ({"higher" if higher else "lower"} is better) is at '
            f'{"least" if higher else "most"} {limit:.6g}; dense: {metrics[name]:.6g}',
            'current',
        )

    def reachable(self) -> float:
        """The budget's ``high``, or the most that the floors allow."""
        low, high = self.budget.low, self.budget.high
        while True:
            try:
                self.trial_at(self.pruner.at(high))
            except InfeasibleBudgetError as error:
                if high <= low:
                    raise UserError(f'prune_cfg.budget.low is out of reach: {error}') from error
                high = max(low, error.most - 1e-9)
            else:
                break
        if high < self.budget.high:
            print_log(f'search: {self.budget.high:g} is out of reach, up to {high:.4g}', 'current')
        return high

    def measure(self, model: nn.Module, label: str) -> dict[str, Any]:
        """Parameters, FLOPs and metrics of a model."""
        size = on_rank_0(lambda: profile([model], self.pruner.profile, latency=False)[0])
        metrics = self.test_set.evaluate(model, label)
        return dict(params=size['params'], flops=size['flops'], metrics=metrics)

    def holds(self, ratio: float) -> bool:
        """Whether the metric holds at a ratio; notes the trial down."""
        report, trial = self.report, self.trial_at(self.pruner.at(ratio))
        if trial.digest not in self.known:
            model, removed = trial.build()
            with hidden_from_terminal():
                found = self.measure(model, f'ratio {ratio:.4g}')
            self.known[trial.digest] = {**found, 'removed': removed}
        found, dense = self.known[trial.digest], report['dense']['metrics'][report['metric']]
        value, better = found['metrics'].get(report['metric']), report['better']
        row = dict(
            trial=len(report['rows']) + 1,
            ratio=ratio,
            removed=found.get('removed', 0.0),
            params=found['params'],
            flops=found['flops'],
            value=value,
            drop=None if value is None else worse_by(dense, value, better),
            holds=within(report['limit'], dense, value, better),
            metrics=found['metrics'],
            digest=trial.digest,
        )
        report['rows'].append(row)
        self.write()
        print_log(f'search: {format_trial(row, report)}', 'current')
        return row['holds']

    def write(self) -> None:
        """Write the trials so far (on rank 0)."""
        if dist.is_main_process() and not self.options.dry_run:
            write_search(self.report, self.path.parent)

    def give_up(self, lowest: Mapping[str, Any]) -> None:
        """Raise :class:`UserError`: not even the lowest ratio that was tried holds."""
        report, budget = self.report, self.budget
        tried = f'{len(report["rows"])} trials' if budget.trials else f'low={budget.low:g}'
        allowed = f'{budget.max_drop:g}' + (' (relative)' if budget.relative else '')
        raise UserError(
            f'prune_cfg.budget.max_drop is {allowed}, which no ratio keeps down to '
            f'{tried}: {format_trial(lowest, report)}; raise max_drop, lower low, or take a budget '
            'with a ratio and train what is left'
        )

    def found(self, row: Mapping[str, Any]) -> SearchResult:
        """The result; what is known of the whole test set needn't be evaluated again."""
        report, whole = self.report, self.budget.whole_test_set
        own = {key: value for key, value in report.items() if key not in OWN_FILE}
        metrics = {'dense': report['dense']['metrics'], 'pruned': row['metrics']} if whole else {}
        test_set = self.test_set if whole else None
        return SearchResult(row['ratio'], own, metrics, test_set)


def format_trial(row: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """A trial in a few words."""
    quantity, drop = report['asked']['of'], row['drop']
    start = f'ratio {row["ratio"]:.4g} ({row["removed"]:.4g} of {quantity} removed)'
    if drop is None:
        return f'{start} leaves no finite {report["metric"]}'
    change = f'{drop:.4g} worse' if drop > 0 else f'{-drop:.4g} better'
    change = 'no different' if drop == 0 else change
    verdict = 'holds' if row['holds'] else 'too much'
    return f'{start} gives {report["metric"]} {row["value"]:.6g}, {change}: {verdict}'


def old_search(prune_cfg: Mapping[str, Any], budget: MetricBudget) -> list[Any]:
    """What version 0.1.0 counted in ``search.json`` in addition to the evaluation itself."""
    own = {k: v for k, v in prune_cfg.items() if k not in ('budget', 'recovery', 'name')}
    return [budget.split, plain(own), dist.get_world_size()]


def confirm(report: RunReport, budget: MetricBudget) -> None:
    """Where the trials saw other samples than the final evaluation, say whether that holds too.

    Args:
        report: The run's; its ``search`` gets ``on_test_data``.
        budget: What was searched.
    """
    search = report.search or {}
    name, better = search['metric'], search['better']
    dense, pruned = ((stage.metrics or {}).get(name) for stage in (report.dense, report.pruned))
    if budget.whole_test_set or dense is None or pruned is None:
        return
    drop = worse_by(dense, pruned, better)
    holds = within(budget.limit(dense, better), dense, pruned, better)
    search['on_test_data'] = dict(dense=dense, pruned=pruned, drop=drop, holds=holds)
    if not holds:
        print_log(
            f'on all test data {name} is {drop:.4g} worse than dense, more than max_drop allows: the '
            'search saw other samples',
            'current',
            logging.WARNING,
        )
