"""Training through MMEngine's Runner, slim checkpoints included."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints.checkpoint_file import load_file, newest_checkpoint, prune_state_of
from ..common.device import free_unused_memory
from ..common.distributed import barrier, on_rank_0
from ..common.errors import UserError
from ..common.fileio import output_directory
from ..common.progress import expect, expect_more, run_progress, step
from ..evaluation.test_set import TestSet
from ..methods.pruners import Pruner
from ..training.config_edits import (
    TRAINING_HOOKS,
    add_hooks,
    check_teacher,
    check_trainable,
    check_training_parts,
    fit_to_device,
    recovery_config,
    refuse_ema,
    use_slim_model,
)
from ..training.hooks.mask_hook import unpack_masks
from ..training.hooks.run_progress_hook import RunProgressHook
from ..training.runner_building import build_runner
from ..training.settings import RecoverySettings
from .expected_steps import training_step
from .iterate.runner_per_round import prune_in_rounds
from .iterate.train_loop import check_same_targets, saved_state, targets_of
from .options import PruneOptions, PruneResult
from .prune import prune, pruner_from_config
from .recovered_stage import add_masked, add_recovered
from .reports import read_explorer
from .resumed_model import check_resumed_model
from .resumed_recovery import report_recovery
from .round_record import Record
from .run_report import RunReport
from .save_results import read_report, write_report


def use_amp(cfg: Config) -> None:
    """Train in mixed precision: bfloat16, which needs no scaling of the loss, or float16.

    It is float16 on GPUs without bfloat16, and AmpOptimWrapper's choice where the config sets its
    ``loss_scale`` or ``dtype``.

    Raises:
        UserError: there is no ``optim_wrapper``, or one with these keys and no GPU.
    """
    if not cfg.get('optim_wrapper'):
        raise UserError('--amp: the config has no optim_wrapper')
    configured = sorted(cfg.optim_wrapper.keys() & {'loss_scale', 'dtype'})
    if configured and not torch.cuda.is_available():
        raise UserError(
            f'--amp: optim_wrapper.{configured[0]} is {cfg.optim_wrapper[configured[0]]!r}, but there is '
            f'no GPU, and mixed precision on CPUs is bfloat16; leave out {" and ".join(configured)}'
        )
    of_mmengine = torch.cuda.is_available() and (
        configured or not torch.cuda.is_bf16_supported(including_emulation=False)
    )
    cfg.optim_wrapper.type = 'AmpOptimWrapper' if of_mmengine else 'Bf16OptimWrapper'


def recover(
    cfg: Config,
    settings: RecoverySettings,
    result: PruneResult,
    work_dir: Path,
    launcher: str,
    which: str | None = None,
    resume: bool = False,
) -> None:
    """Train a pruned checkpoint, evaluate the result and add it to the result's report.

    Args:
        cfg: The user's config.
        settings: How to train.
        result: Of the pruning.
        work_dir: Where the training writes.
        launcher: As on the command line.
        which: See :meth:`PruneResult.trained`.
        resume: Go on with a training of the same masks in ``work_dir``.
    """
    origin, test_set = result.trained(which), result.test_set or TestSet(cfg)
    if origin == result.weight_level and result.structured:
        add_masked(result.report, cfg, test_set, origin)
    teacher = result.report.checkpoint
    resumed = started_training(origin, work_dir) if resume else None
    for name in ('load', *(() if test_set.missing else ('evaluate',)), 'report'):
        expect_more(name, 1)
    with step('train'):
        train_pruned(cfg, settings, origin, work_dir, launcher, teacher, resumed)
    add_recovered(result.report, cfg, settings, test_set, work_dir)


def started_training(origin: Path, work_dir: Path) -> str | None:
    """The newest readable checkpoint of a training of ``origin``, identified by its masks; or None."""

    def find() -> str | None:
        newest = newest_checkpoint(work_dir)
        if newest is None:
            return None
        ours, theirs = (unpack_masks(load_file(p).get('masks') or {}) for p in (origin, newest))
        same = ours.keys() == theirs.keys() and all(m.equal(theirs[n]) for n, m in ours.items())
        return str(newest) if same else None

    return on_rank_0(find)


def train_pruned(
    cfg: Config,
    settings: RecoverySettings,
    origin: Path,
    work_dir: Path,
    launcher: str,
    teacher: str | None,
    resumed: str | None = None,
) -> None:
    """Train the pruned checkpoint ``origin``, or go on with its training from ``resumed``."""
    trained = recovery_config(cfg, settings, load_file(origin), origin, work_dir, teacher)
    if resumed:
        trained.load_from, trained.resume = resumed, True
    fit_to_device(trained, launcher)
    free_unused_memory()  # of the pruning
    runner = build_runner(trained)
    runner.register_hook(RunProgressHook())
    runner.train()
    barrier()  # rank 0 may still be naming the last checkpoint


def train(cfg: Config, launcher: str) -> RunReport | None:
    """What ``tools/train.py`` does: prune first where the config has a ``prune_cfg``, then train.

    Args:
        cfg: The config; ``work_dir`` is set, and made if it isn't there; ``resume`` and ``load_from`` as
            on the command line.
        launcher: As on the command line.

    Returns:
        The report, if there was a ``prune_cfg``.

    Raises:
        UserError: bad input.
    """
    with output_directory(cfg.work_dir, 'work_dir'), run_progress():
        return train_in(cfg, launcher)


def train_in(cfg: Config, launcher: str) -> RunReport | None:
    """:func:`train` in a work directory that is there."""
    if in_loop(cfg):
        train_tickets(cfg, launcher)
        return None
    if cfg.get('prune_cfg') is not None and (pruner := pruner_from_config(cfg)).in_rounds:
        pruner.check_without_loop()
        if cfg.get('resume') and cfg.get('resume_path'):
            raise UserError(
                f'--resume {cfg.resume_path}: pruning in rounds goes on from what lies in the work '
                'directory; give --resume without a name'
            )
        resume = bool(cfg.get('resume'))
        options = PruneOptions(cfg.get('load_from'), Path(cfg.work_dir), resume=resume)
        return train_in_rounds(cfg, pruner, options, launcher).report
    resume_asked, origin = bool(cfg.get('resume')), cfg.get('load_from')
    resumed = find_resumed(cfg)
    if cfg.get('prune_cfg') is not None:
        return prune_and_train(cfg, launcher, resumed, resume_asked)
    checkpoint = resumed or cfg.get('load_from')
    if checkpoint and Path(checkpoint).is_file():
        content = load_file(checkpoint)
        if prune_state_of(content):
            use_slim_model(cfg, str(checkpoint))
        if content.get('masks'):
            add_hooks(cfg, 'MaskHook')
        if resumed:
            check_resumed_model(cfg, content, str(checkpoint))
    elif checkpoint and '://' not in str(checkpoint):
        raise UserError(f'load_from {checkpoint} does not exist; give a .pth file')
    cfg.resume = resumed is not None  # MMEngine would take epoch and optimizer from load_from, too
    if resumed:
        cfg.load_from = resumed
    if cfg.get('train_dataloader'):
        check_training_parts(cfg)
    add_hooks(cfg, *TRAINING_HOOKS)
    fit_to_device(cfg, launcher)
    build_runner(cfg).train()
    barrier()  # rank 0 may still be naming the last checkpoint
    return report_recovery(cfg, origin)


def in_loop(cfg: Config) -> bool:
    """Whether the config's train loop prunes by itself."""
    return (cfg.get('train_cfg') or {}).get('type') == 'IterativePruneLoop'


def train_tickets(cfg: Config, launcher: str) -> None:
    """Train in pruning states: :class:`IterativePruneLoop` does the rest."""
    # Without prune_cfg the loop itself says that it's missing.
    pruner = None if cfg.get('prune_cfg') is None else pruner_from_config(cfg)
    refuse_ema(cfg, "train_cfg.type='IterativePruneLoop'")
    check_training_parts(cfg)
    named = cfg.pop('resume_path', None)
    if cfg.get('resume'):
        if named and not Path(named).is_file():
            raise UserError(f'--resume {named} does not exist; give a .pth file')
        newest = named or on_rank_0(lambda: newest_checkpoint(cfg.work_dir))
        cfg.resume = newest is not None
        if newest is None:
            print_log(f'nothing to resume in {cfg.work_dir}: starting anew', 'current')
        else:
            state = saved_state(load_file(newest))
            if state and pruner:  # before the Runner writes the config into the work directory
                check_same_targets(Record.from_dict(state['record']), targets_of(pruner))
            cfg.load_from = str(newest)
    add_hooks(cfg, *TRAINING_HOOKS)
    fit_to_device(cfg, launcher)
    build_runner(cfg).train()


def train_in_rounds(
    cfg: Config, pruner: Pruner, options: PruneOptions, launcher: str
) -> PruneResult:
    """Prune and train in turns, as the pruner's ``rounds`` say; see :func:`prune_in_rounds`."""

    def train_round(
        settings: RecoverySettings, origin: Path, folder: Path, resumed: Path | None
    ) -> None:
        own = deepcopy(cfg)
        own.experiment_name = f'{Path(cfg.filename or "model").stem}_{folder.name}'
        teacher = options.checkpoint
        path = str(resumed) if resumed else None
        train_pruned(own, settings, origin, folder, launcher, teacher, path)

    for round_ in pruner.rounds:
        check_trainable(cfg, round_.recovery)
        check_teacher(round_.recovery, options.checkpoint)
    check_training_parts(cfg)
    return prune_in_rounds(cfg, pruner, options, train_round)


def prune_and_train(
    cfg: Config, launcher: str, resumed: str | None, resume_asked: bool
) -> RunReport | None:
    """Prune ``cfg.load_from`` into the work directory and train it there, or go on with that.

    Args:
        cfg: The config.
        launcher: As on the command line.
        resumed: The checkpoint of a training to go on with, if there is one.
        resume_asked: Whether to go on with what is there.
    """
    work_dir = Path(cfg.work_dir)
    pruner = pruner_from_config(cfg)
    check_trainable(cfg, pruner.recovery)
    check_training_parts(cfg)
    teacher = cfg.get('load_from')
    # A --resume that names no dense model goes on with the pruned one that was killed before epoch 1.
    pruned_before = resume_asked and not teacher and bool(pruned_files(work_dir))
    if resumed is None and not pruned_before:
        check_teacher(pruner.recovery, teacher)
        expect([training_step(pruner.recovery)])
        result = prune(cfg, pruner, PruneOptions(teacher, work_dir, resume=bool(cfg.get('resume'))))
        recover(cfg, pruner.recovery, result, work_dir, launcher)
        if dist.is_main_process():
            with step('report'):
                write_report(result, work_dir)
        return result.report
    origin = next(iter(pruned_files(work_dir) + pruned_files(work_dir.parent)), None)
    if origin is None:
        raise UserError(
            f'--resume: {work_dir} holds no *_pruned.pth that its training started from; '
            'use the config that lies there'
        )
    report = read_report(work_dir)
    if report:
        teacher = teacher or report.checkpoint
    train_pruned(cfg, pruner.recovery, origin, work_dir, launcher, teacher, resumed)
    if report is None:
        return None
    add_recovered(report, cfg, pruner.recovery, TestSet(cfg), work_dir)
    if dist.is_main_process():
        explorer = read_explorer(work_dir / 'report.html')
        write_report(PruneResult(report, explorer=explorer), work_dir)
    return report


def pruned_files(folder: Path) -> list[Path]:
    """Pruned checkpoints in ``folder``, the structured one first."""
    return sorted(folder.glob('*_pruned.pth'), key=lambda path: '_structured_' not in path.name)


def check_training_checkpoint(content: Mapping[str, Any], path: str) -> None:
    """Raise :class:`UserError` for a checkpoint that no training of MMEngine's has written."""
    if 'message_hub' not in content:
        kind = 'pruned weights' if prune_state_of(content) or content.get('masks') else 'weights'
        raise UserError(
            f'--resume {path} holds {kind} alone, and no training to go on with; train them with '
            f'--load-from {path}'
        )


def check_resumable(work_dir: str | Path) -> None:
    """Raise :class:`UserError` unless a training in a work directory can go on: else weights are random.

    mmdet's ``tools/train.py --resume`` clears ``load_from``, so nothing says what would be pruned.
    """
    folder = Path(work_dir)
    found = on_rank_0(lambda: bool(pruned_files(folder)) or newest_checkpoint(folder) is not None)
    if not found:
        raise UserError(
            f'resume=True: {folder} holds no checkpoint and no *_pruned.pth to go on with, and without '
            'load_from freshly initialised weights would be pruned; start without --resume'
        )


def find_resumed(cfg: Config) -> str | None:
    """The checkpoint to resume from, or None."""
    if not cfg.get('resume'):
        return None
    named = cfg.pop('resume_path', None)
    if named and not Path(named).is_file():
        raise UserError(f'--resume {named} does not exist; give a .pth file')
    if named:
        check_training_checkpoint(load_file(named), named)
    path = named or on_rank_0(lambda: newest_checkpoint(cfg.work_dir))
    if path is None:
        print_log(f'nothing to resume in {cfg.work_dir}: starting anew', 'current')
    return path and str(path)
