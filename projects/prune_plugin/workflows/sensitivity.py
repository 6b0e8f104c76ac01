"""How much the metrics suffer when one module alone is pruned, without any training."""

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmengine import dist
from mmengine.config import Config
from torch import nn

from ..checkpoints.model_loading import load_model
from ..common.device import best_device
from ..common.distributed import assert_ranks_agree, barrier, on_rank_0
from ..common.errors import UserError
from ..common.progress import expect, step
from ..common.terminal import hidden_from_terminal
from ..common.time_left import Step
from ..evaluation.environment import environment
from ..evaluation.profiling import profile
from ..evaluation.test_set import TestSet, headline
from ..methods.pruners import Pruner
from ..methods.pruners.execution import check_in_memory
from ..structure.prune_state import PruneState
from ..structure.slimming import slim
from .evaluation_cache import cached_results
from .expected_steps import guessed, scoring_steps
from .module_groups import ModuleGroup, module_groups
from .options import PruneOptions
from .prune import data_factory, score
from .reports import evaluation_bar, format_row, plot_sensitivity, write_sensitivity
from .run_fingerprint import RunFingerprint, evaluation_fingerprint

RATIOS = (0.1, 0.3, 0.5)
NOTES = {
    'ratio': 'fraction of the units of one module removed, all others left whole; no training',
    'kept': 'equal to units where nothing can go: the ratio rounds to no unit, or the floors forbid',
    'flops': 'two per multiply-accumulate, one sample',
    'change': 'value of the pruned model minus that of the dense one',
    'worsening': 'the change for the worse divided by the larger of the two values, within [-1, 1]: '
    '0.5 is a score halved or an error doubled, below 0 is better than dense',
    'sensitivity': 'mean of worsening over the headline metrics that are not 0 in the dense model',
}


@dataclass
class SensitivityOptions:
    """What a run is asked for beside the config.

    Attributes:
        checkpoint: The model's weights; None: freshly initialised.
        output_dir: Where results go; must exist.
        ratios: Fractions of a module's units to remove, each in (0, 1).
        num_samples: Test samples to evaluate on, the first ones; None: all.
        from_table: Score table to read instead of computing scores.
    """

    checkpoint: str | None
    output_dir: Path
    ratios: Sequence[float] = RATIOS
    num_samples: int | None = None
    from_table: str | None = None


def worsening(dense: float, value: float, better: str) -> float:
    """The change for the worse, relative to the larger of the two values: within [-1, 1].

    Args:
        dense: The metric of the dense model.
        value: That of the pruned one.
        better: The better direction, ``'max'`` or ``'min'``.
    """
    change = dense - value if better == 'max' else value - dense
    scale = max(abs(dense), abs(value))
    return min(max(change / scale, -1.0), 1.0) if scale else 0.0


def analyse(cfg: Config, pruner: Pruner, options: SensitivityOptions) -> dict[str, Any]:
    """Prune each module alone at each ratio, evaluate, and write table and heat map.

    All ranks call it; rank 0 alone writes, after every evaluation. What ``sensitivity.json`` in the
    output directory holds of the same model on the same data isn't evaluated again.

    Args:
        cfg: The config.
        pruner: Its pruner; criterion, units, patterns and floors count, budget and allocator don't.
        options: See :class:`SensitivityOptions`.

    Returns:
        The content of ``sensitivity.json``.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    check_pruner(pruner)
    expect([guessed('load')])
    with step('load'):
        loaded = load_model(cfg, options.checkpoint, best_device())
    with step('read test data'):
        test_set = TestSet(cfg, options.num_samples)
    if test_set.missing:
        raise UserError(f'--sensitivity evaluates models on the test data, but {test_set.missing}')
    expect(scoring_steps(pruner, bool(options.from_table)))
    scoring = PruneOptions(options.checkpoint, options.output_dir, from_table=options.from_table)
    scored = score(pruner, loaded, scoring, data_factory(cfg, pruner))
    parts = module_groups(loaded.model, scored.groups, scored.importance, pruner)
    plan = on_rank_0(
        lambda: [(p, p.state(ratio, pruner.round_to)) for p in parts for ratio in options.ratios]
    )
    assert_ranks_agree(''.join(state.digest() for _, state in plan), 'the units kept')
    if not any(state.reduced for _, state in plan):
        ratios = ', '.join(f'{ratio:g}' for ratio in options.ratios)
        raise UserError(
            f'--sensitivity {ratios} would remove nothing of any module; raise the ratio, or lower '
            'prune_cfg.min_keep or round_to'
        )
    shape = pruner.profile.input_shape
    fingerprint = evaluation_fingerprint(
        cfg, options.checkpoint, options.num_samples, older=[shape], input_shape=shape
    )
    report = start_report(cfg, pruner, options, plan, scored.refused, fingerprint)
    path = options.output_dir / 'sensitivity.json'
    known = on_rank_0(lambda: cached_results(path, fingerprint))
    run = Run(loaded.model, test_set, pruner, options.output_dir, report, known)
    new = {state.digest() for _, state in plan if state.reduced} - known.keys()
    expect([Step('dense', test_set.samples)])
    expect(Step('point', test_set.samples) for _ in new)
    with step('dense'):
        run.dense()
    run.pruned([state for _, state in plan])
    if dist.is_main_process():
        plot_sensitivity(report, options.output_dir / 'sensitivity.png')
    barrier()
    return report


def check_pruner(pruner: Pruner) -> None:
    """Raise :class:`UserError` for a pruner that removes no units."""
    if not pruner.removes_units:
        raise UserError(
            f'prune_cfg.type is {type(pruner).__name__!r}; --sensitivity removes units and needs a '
            "'StructuredPruner'"
        )
    check_in_memory(pruner.execution, '--sensitivity')


def start_report(
    cfg: Config,
    pruner: Pruner,
    options: SensitivityOptions,
    plan: Sequence[tuple[ModuleGroup, PruneState]],
    refused: Mapping[str, str],
    fingerprint: RunFingerprint,
) -> dict[str, Any]:
    """The report before any evaluation: one row per module and ratio."""
    rows = [
        dict(
            module=part.module,
            kind=part.kind,
            layer_idx=part.groups[0].layer_idx,
            ratio=state.asked['ratio'],
            units=part.units,
            kept=sum(len(kept) for kept in state.kept.values()),
            params_removed=None,
            flops_removed=None,
            metrics=None,
            change=None,
            worsening=None,
            sensitivity=None,
            digest=state.digest(),
        )
        for part, state in plan
    ]
    return {
        'asked': {
            'ratios': list(options.ratios),
            'samples': options.num_samples,
            'criterion': f'table {options.from_table}' if options.from_table else pruner.method,
        },
        'dense': None,
        'headline': None,
        'left_out': [],
        'rows': rows,
        'not_prunable': dict(refused),
        'settings': fingerprint.parts,
        'config': cfg.filename,
        'checkpoint': options.checkpoint,
        'command': sys.argv,
        'notes': dict(NOTES),
        'environment': environment(),
    }


@dataclass
class Run:
    """The evaluations, one after the other, and what they have found so far.

    Attributes:
        model: The dense model; only copies of it are run.
        test_set: What to evaluate on.
        pruner: Says how to count FLOPs.
        folder: Where the report goes.
        report: The content of ``sensitivity.json``; its rows are filled in.
        known: Results by digest, see :func:`cached_results`.
    """

    model: nn.Module
    test_set: TestSet
    pruner: Pruner
    folder: Path
    report: dict[str, Any]
    known: dict[str, dict]

    def measure(self, model: nn.Module, label: str, progress: bool = False) -> dict[str, Any]:
        """Parameters, FLOPs and metrics of a model."""
        size = on_rank_0(lambda: profile([model], self.pruner.profile, latency=False)[0])
        metrics = self.test_set.evaluate(model, label, progress)
        return dict(params=size['params'], flops=size['flops'], metrics=metrics)

    def dense(self) -> None:
        """Evaluate the dense model."""
        if '' not in self.known:
            self.known[''] = self.measure(deepcopy(self.model), 'dense', progress=True)
        dense = self.report['dense'] = self.known['']
        better = headline(self.test_set.metrics, dense['metrics'])
        self.report['headline'] = better
        self.report['left_out'] = [name for name in better if not dense['metrics'][name]]
        if not better:
            raise UserError(
                '--sensitivity: the metrics of test_evaluator give no finite number on these samples; '
                'take more of them, or other metrics'
            )

    def pruned(self, states: Sequence[PruneState]) -> None:
        """Evaluate what isn't known yet; ``states`` belong to the report's rows, one each."""
        rows = self.report['rows']
        for row in rows:
            if row['digest'] in self.known:
                self.fill(row, self.known[row['digest']])
        waiting = {
            row['digest']: state
            for row, state in zip(rows, states, strict=True)
            if state.reduced and row['metrics'] is None
        }
        self.write()
        bar = evaluation_bar(len(waiting), 'pruning each module alone')
        with bar as show, hidden_from_terminal():
            for digest, state in waiting.items():
                same = [row for row in rows if row['digest'] == digest]
                with step('point'):
                    found = self.one(state, f'{same[0]["module"]} at {same[0]["ratio"]:g}')
                for row in same:
                    self.fill(row, found)
                self.write()
                show(format_row(same[0], self.report))

    def one(self, state: PruneState, label: str) -> dict[str, Any]:
        """Slim a copy, evaluate it, and give a row's figures."""
        found = self.measure(slim(deepcopy(self.model), state), label)
        dense = self.report['dense']
        return dict(
            params_removed=dense['params'] - found['params'],
            flops_removed=None if found['flops'] is None else dense['flops'] - found['flops'],
            metrics=found['metrics'],
        )

    def fill(self, row: dict[str, Any], found: Mapping[str, Any]) -> None:
        """Put what was found into a row, and what follows from it."""
        dense, better = self.report['dense']['metrics'], self.report['headline']
        metrics = found['metrics']
        for key in ('params_removed', 'flops_removed', 'metrics'):
            row[key] = found[key]
        row['change'] = {n: metrics[n] - dense[n] for n in better if n in metrics}
        row['worsening'] = {n: worsening(dense[n], metrics[n], better[n]) for n in row['change']}
        counted = [value for name, value in row['worsening'].items() if dense[name]]
        row['sensitivity'] = fmean(counted) if counted else None

    def write(self) -> None:
        """Write the report as far as it goes."""
        if dist.is_main_process():
            write_sensitivity(self.report, self.folder)
