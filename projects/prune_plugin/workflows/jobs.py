"""The jobs of ``tools/analysis_struct.py``: each is one call, from a config to files and a printed table.

All ranks call them; rank 0 alone writes and prints.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine import dist
from mmengine.config import Config

from ..checkpoints.export import formats
from ..checkpoints.export.formats import Exports
from ..common.directory_lock import locked
from ..common.errors import UserError
from ..common.fileio import output_directory
from ..common.progress import expect, run_progress, step
from ..methods.pruners import Pruner
from ..training import config_edits
from ..training.settings import RecoverySettings
from . import sensitivity
from .cli import start_processes
from .curve import CurveOptions
from .curve import draw_curve as make_curve
from .expected_steps import training_step
from .iterate.runner_per_round import prune_in_rounds
from .options import PruneOptions, PruneResult
from .plan_on_meta import plan_on_meta as make_plan
from .prune import prune as prune_once
from .reports import (
    print_curve,
    print_groups,
    print_history,
    print_kinds,
    print_memory,
    print_report,
    print_search,
    print_sensitivity,
    print_streamed,
)
from .run_log import nothing_left_of_errors, waiting_log
from .run_report import RunReport
from .save_results import write_report
from .streamed import check_exports, prune_streamed
from .train import recover, train_in_rounds, use_amp


@dataclass(frozen=True)
class Training:
    """How a pruned model is trained, beside what ``prune_cfg.recovery`` says.

    Attributes:
        retrain: From epoch 0 with a fresh optimizer; else go on with the dense model's.
        epochs: How many; None: as the config says.
        which: ``'structured'`` or ``'unstructured'``; None: the structured model if there is one.
        amp: In mixed precision.
    """

    retrain: bool = False
    epochs: int | None = None
    which: str | None = None
    amp: bool = False

    def settings(self, settings: RecoverySettings) -> RecoverySettings:
        """The config's settings with this mode and these epochs."""
        return config_edits.settings_for(settings, self.retrain, self.epochs)


def prune(
    cfg: Config, pruner: Pruner, options: PruneOptions, exports: Exports, launcher: str
) -> PruneResult:
    """Prune into files, in one go or in rounds, and train nothing.

    Args:
        cfg: The config.
        pruner: From :func:`.prune.pruner_from_config`.
        options: See :class:`PruneOptions`.
        exports: What to write for other programs.
        launcher: As on the command line.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    if pruner.execution.streamed:
        check_exports(exports)
    formats.check(cfg, exports)
    check_resume(pruner, options, pruner.layer_by_layer)
    with started(cfg, launcher, options.output_dir):
        if pruner.execution.streamed:
            result = prune_streamed(cfg, pruner, options)
        elif pruner.in_rounds:
            result = prune_in_rounds(cfg, pruner, options)
        else:
            result = prune_once(cfg, pruner, options)
        formats.save(cfg, result.trained(), exports)
    print_result(result)
    return result


def dry_run(cfg: Config, pruner: Pruner, options: PruneOptions, launcher: str) -> PruneResult:
    """Plan and print; write nothing but ``options.save_table``. See :func:`prune`."""
    with started(cfg, launcher):
        result = prune_once(cfg, pruner, options)
    if dist.is_main_process():
        print_groups(result.report)
    print_result(result)
    return result


def prune_and_train(
    cfg: Config,
    pruner: Pruner,
    options: PruneOptions,
    training: Training,
    exports: Exports,
    launcher: str,
) -> PruneResult:
    """Prune into files and train the result, in one go or in rounds.

    Args:
        cfg: The config.
        pruner: From :func:`.prune.pruner_from_config`.
        options: See :class:`PruneOptions`.
        training: How to train.
        exports: What to write of the trained model for other programs.
        launcher: As on the command line.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    formats.check(cfg, exports)
    check_resume(pruner, options)
    settings = training.settings(pruner.recovery)
    check_training(cfg, pruner, options, training, settings)
    pruner.rounds = [replace(r, recovery=training.settings(r.recovery)) for r in pruner.rounds]
    with started(cfg, launcher, options.output_dir):
        work_dir = work_dir_of(pruner, options, training)
        if pruner.in_rounds:
            result = train_in_rounds(cfg, pruner, options, launcher)
        else:
            expect([training_step(settings)])
            result = prune_once(cfg, pruner, options)
            recover(cfg, settings, result, work_dir, launcher, training.which, options.resume)
            if dist.is_main_process():
                with step('report'):
                    write_report(result, options.output_dir)
        formats.save(cfg, work_dir / 'latest.pth', exports)
    print_result(result)
    return result


def work_dir_of(pruner: Pruner, options: PruneOptions, training: Training) -> Path:
    """Where :func:`prune_and_train` leaves ``latest.pth``, the trained model."""
    if pruner.in_rounds:
        return options.output_dir
    return options.output_dir / config_edits.FOLDERS[training.settings(pruner.recovery).mode]


def plan_on_meta(
    cfg: Config, pruner: Pruner, options: PruneOptions, write: bool, launcher: str
) -> RunReport:
    """Plan by shapes alone and print it; see :func:`.plan_on_meta.plan_on_meta`."""
    with started(cfg, launcher, options.output_dir if write else None):
        report = make_plan(cfg, pruner, options, write)
    if dist.is_main_process():
        if report.groups:
            print_kinds(report)
        print_report(report)
        print_memory(report)
        print_streamed(report)
    return report


def analyse_sensitivity(
    cfg: Config, pruner: Pruner, options: sensitivity.SensitivityOptions, launcher: str
) -> dict:
    """Prune each module alone and evaluate; see :func:`.sensitivity.analyse`."""
    sensitivity.check_pruner(pruner)
    with started(cfg, launcher, options.output_dir):
        report = sensitivity.analyse(cfg, pruner, options)
    if dist.is_main_process():
        print_sensitivity(report)
        for ending in ('csv', 'json', 'png'):
            print(options.output_dir / f'sensitivity.{ending}')
    return report


def draw_curve(cfg: Config, pruner: Pruner, options: CurveOptions, launcher: str) -> dict:
    """Prune at several ratios, evaluate, and draw; see :func:`.curve.draw_curve`."""
    with started(cfg, launcher, options.output_dir):
        report = make_curve(cfg, pruner, options)
    if dist.is_main_process():
        print_curve(report)
        for row in report['rows']:
            if row['checkpoint']:
                print(row['checkpoint'])
        for ending in ('csv', 'json', 'png'):
            print(options.output_dir / f'curve.{ending}')
    return report


@contextmanager
def started(cfg: Config, launcher: str, folder: Path | None = None) -> Iterator[None]:
    """A process group, which is logged, an output directory if the job writes, and a progress bar."""
    with waiting_log():
        start_processes(cfg, launcher)
        if folder is None:
            with run_progress():
                yield
            return
        with output_directory(folder), locked(folder), nothing_left_of_errors(), run_progress():
            yield


def check_resume(pruner: Pruner, options: PruneOptions, in_steps: bool = False) -> None:
    """Raise :class:`UserError` if a pruning of this kind can't be resumed.

    Args:
        pruner: The pruner.
        options: Say whether it is to be.
        in_steps: Whether finished steps of one that removes units are kept.
    """
    resumes = not pruner.removes_units or pruner.execution.streamed or in_steps
    if options.resume and not resumes:
        raise UserError(
            f'--resume goes with a WeightPruner, but prune_cfg.type is {type(pruner).__name__!r}; its '
            'training goes on with tools/train.py --resume'
        )


def check_training(
    cfg: Config,
    pruner: Pruner,
    options: PruneOptions,
    training: Training,
    settings: RecoverySettings,
) -> None:
    """Raise :class:`UserError` unless config and pruner give what the training needs."""
    config_edits.check_trainable(cfg, settings)
    config_edits.check_teacher(settings, options.checkpoint)
    if training.which == 'structured' and not pruner.removes_units:
        raise UserError(
            f'--train structured: a {type(pruner).__name__} makes no structured model; '
            'leave it out, or give unstructured'
        )
    if training.amp:
        use_amp(cfg)
    config_edits.check_training_parts(cfg)


def print_result(result: PruneResult) -> None:
    """Print the results of a pruning, and its files, on rank 0."""
    if not dist.is_main_process():
        return
    report = result.report
    if report.rounds:
        print_history(report.record())
    if report.search:
        print_search(report.search)
    print_report(report)
    print_streamed(report)
    for path in (result.structured, result.weight_level):
        if path:
            print(path)
