"""Training and testing through MMEngine's Runner, slim checkpoints included."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from .checkpoint import load_file, load_weights, prune_state_of
from .errors import UserError
from .evaluation import TestSet, select_metrics
from .hooks.mask_hook import unpack_masks
from .hooks.prune_state_hook import unwrapped
from .loading import load_model
from .pipeline import Options, Outcome, prune_to_files, pruner_of, write_report
from .recovery import (
    TRAINING_HOOKS,
    add_hooks,
    check_data,
    check_teacher,
    check_trainable,
    fit_to_device,
    recovery_config,
    use_slim_model,
)
from .settings import RecoverySettings


def build_runner(cfg: Config) -> Runner:
    """The Runner of a config, of whatever type it names."""
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def use_amp(cfg: Config) -> None:
    """Train in mixed precision: fp16 or as configured on GPUs, bfloat16 on CPUs."""
    if not cfg.get('optim_wrapper'):
        raise UserError('--amp: the config has no optim_wrapper')
    cuda = torch.cuda.is_available()
    cfg.optim_wrapper.type = 'AmpOptimWrapper' if cuda else 'Bf16OptimWrapper'


def recover(
    cfg: Config,
    settings: RecoverySettings,
    outcome: Outcome,
    work_dir: Path,
    launcher: str,
    which: str | None = None,
) -> None:
    """Train a pruned checkpoint, evaluate the result and add it to the outcome's report.

    Args:
        cfg: The user's config.
        settings: How to train.
        outcome: Of the pruning.
        work_dir: Where the training writes.
        launcher: As on the command line.
        which: See :meth:`Outcome.trained`.
    """
    origin, test_set = outcome.trained(which), outcome.test_set or TestSet(cfg)
    if origin == outcome.weight_level and outcome.structured:
        add_masked(outcome.report, cfg, test_set, origin)
    train_pruned(cfg, settings, origin, work_dir, launcher, outcome.report['checkpoint'])
    add_recovered(outcome.report, cfg, settings, test_set, work_dir)


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
    build_runner(trained).train()
    dist.barrier()  # rank 0 may still be naming the last checkpoint


def add_recovered(
    report: dict[str, Any],
    cfg: Config,
    settings: RecoverySettings,
    test_set: TestSet,
    work_dir: Path,
) -> None:
    """Evaluate ``latest.pth`` of a recovery and add the stage ``recovered`` to a report."""
    latest = work_dir / 'latest.pth'
    loaded = load_model(cfg, str(latest), device())
    zeros = zero_share(loaded.checkpoint)
    report['recovered'] = {
        **counts(report, 'pruned' if zeros is None else 'dense'),
        'metrics': test_set.evaluate(loaded.model, 'recovered'),
        'mode': settings.mode,
        'epochs': settings.epochs,
        'checkpoint': str(latest),
        'trained': 'structured' if zeros is None else 'unstructured',
        'zeros': zeros,
    }


def add_masked(report: dict[str, Any], cfg: Config, test_set: TestSet, path: Path) -> None:
    """Evaluate the weight-level pruned model and add the stage ``masked`` to a report."""
    loaded = load_model(cfg, str(path), device())
    report['masked'] = {
        **counts(report, 'dense'),
        'metrics': test_set.evaluate(loaded.model, 'masked'),
        'zeros': zero_share(loaded.checkpoint),
    }


def device() -> str:
    """Where models are evaluated."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def counts(report: dict[str, Any], stage: str) -> dict[str, Any]:
    """Parameters, FLOPs and latency of a stage."""
    return {k: v for k, v in report[stage].items() if k != 'metrics'}


def zero_share(checkpoint: dict[str, Any]) -> float | None:
    """The fraction of zeros among a checkpoint's masked tensors; None without masks.

    Raises:
        RuntimeError: a masked weight isn't zero.
    """
    masks = unpack_masks(checkpoint.get('masks') or {})
    if not masks:
        return None
    weights = {k.removeprefix('module.'): v for k, v in checkpoint['state_dict'].items()}
    grown = [name for name, keep in masks.items() if weights[name][~keep].any()]
    if grown:
        raise RuntimeError(f'masked weights of {grown[0]} are not zero after training')
    total = sum(keep.numel() for keep in masks.values())
    return sum(int((weights[name] == 0).sum()) for name in masks) / total


def train(cfg: Config, launcher: str) -> dict[str, Any] | None:
    """What ``tools/train.py`` does: prune first where the config has a ``prune_cfg``, then train.

    Args:
        cfg: The config; ``work_dir`` is set, ``resume`` and ``load_from`` as on the command line.
        launcher: As on the command line.

    Returns:
        The report, if there was a ``prune_cfg``.

    Raises:
        UserError: bad input.
    """
    resumed = find_resumed(cfg)
    if cfg.get('prune_cfg') is not None:
        return prune_and_train(cfg, launcher, resumed)
    checkpoint = resumed or cfg.get('load_from')
    if checkpoint and Path(checkpoint).is_file():
        content = load_file(checkpoint)
        if prune_state_of(content):
            use_slim_model(cfg, str(checkpoint))
        if content.get('masks'):
            add_hooks(cfg, 'MaskHook')
    elif checkpoint and '://' not in str(checkpoint):
        raise UserError(f'load_from {checkpoint} does not exist; give a .pth file')
    if resumed:
        cfg.load_from = resumed
    if cfg.get('train_dataloader'):
        check_data(cfg, 'train_dataloader')
    add_hooks(cfg, *TRAINING_HOOKS)
    fit_to_device(cfg, launcher)
    build_runner(cfg).train()
    return None


def prune_and_train(cfg: Config, launcher: str, resumed: str | None) -> dict[str, Any] | None:
    """Prune ``cfg.load_from`` into the work directory and train it there, or go on with that."""
    work_dir = Path(cfg.work_dir)
    pruner = pruner_of(cfg)
    check_trainable(cfg)
    check_data(cfg, 'train_dataloader')
    teacher = cfg.get('load_from')
    if resumed is None:
        check_teacher(pruner.recovery, teacher)
        outcome = prune_to_files(cfg, pruner, Options(teacher, work_dir))
        recover(cfg, pruner.recovery, outcome, work_dir, launcher)
        if dist.is_main_process():
            write_report(outcome, work_dir)
        return outcome.report
    origin = next(iter(pruned_files(work_dir) + pruned_files(work_dir.parent)), None)
    if origin is None:
        raise UserError(
            f'--resume: {work_dir} holds no *_pruned.pth that its training started from; '
            'use the config that lies there'
        )
    report_file = work_dir / 'report.json'
    report = json.loads(report_file.read_text()) if report_file.is_file() else {}
    teacher = teacher or report.get('checkpoint')
    train_pruned(cfg, pruner.recovery, origin, work_dir, launcher, teacher, resumed)
    if not report:
        return None
    add_recovered(report, cfg, pruner.recovery, TestSet(cfg), work_dir)
    if dist.is_main_process():
        write_report(Outcome(report), work_dir)
    return report


def pruned_files(folder: Path) -> list[Path]:
    """Pruned checkpoints in ``folder``, the structured one first."""
    return sorted(folder.glob('*_pruned.pth'), key=lambda path: '_structured_' not in path.name)


def find_resumed(cfg: Config) -> str | None:
    """The checkpoint to resume from, or None."""
    if not cfg.get('resume'):
        return None
    named = cfg.pop('resume_path', None)
    if named and not Path(named).is_file():
        raise UserError(f'--resume {named} does not exist; give a .pth file')
    if named:
        load_file(named)
    path = named or (find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None)
    if path is None:
        print_log(f'nothing to resume in {cfg.work_dir}: starting anew', 'current')
    return path


def test(
    cfg: Config, checkpoint: str, names: list[str] | None, launcher: str, tmpdir: str | None = None
) -> dict[str, Any]:
    """What ``tools/test.py`` does: evaluate a checkpoint, dense or slim, with the dense config.

    Args:
        cfg: The config.
        checkpoint: The file.
        names: Metrics to compute; all of the config's if None.
        launcher: As on the command line.
        tmpdir: Folder in which ranks exchange results.

    Returns:
        The metrics.

    Raises:
        UserError: unknown metric, missing data, or a checkpoint that doesn't fit.
    """
    if not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
        raise UserError(f'{cfg.filename} has no test_dataloader and test_evaluator')
    cfg = deepcopy(cfg)
    content = load_file(checkpoint)
    cfg.test_evaluator = select_metrics(cfg.test_evaluator, names)
    cfg.test_cfg = cfg.get('test_cfg') or {}
    check_data(cfg, 'test_dataloader')
    load_model(cfg, checkpoint)  # everything is checked before the Runner writes its first file
    if prune_state_of(content):
        use_slim_model(cfg, str(checkpoint))
    cfg.load_from, cfg.resume = None, False
    fit_to_device(cfg, launcher)
    runner = build_runner(cfg)
    load_weights(unwrapped(runner), content, checkpoint)
    for metric in runner.test_loop.evaluator.metrics:
        if tmpdir and metric.collect_device == 'cpu':
            metric.collect_dir = tmpdir
    return runner.test()
