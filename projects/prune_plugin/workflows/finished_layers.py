"""Where a run keeps what it has finished (layers, steps of rescoring), so that a killed one can go on."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..methods.pruners import Pruner
from ..methods.pruners.layer_progress import LayerProgress
from .options import PruneOptions
from .run_fingerprint import RunFingerprint, pruning_fingerprint, pruning_settings


def calibration_dataloader(cfg: Config) -> dict | None:
    """The config's ``calibration_dataloader``, else its ``train_dataloader``."""
    return cfg.get('calibration_dataloader') or cfg.get('train_dataloader')


def progress_key(cfg: Config, pruner: Pruner, options: PruneOptions, **more: Any) -> RunFingerprint:
    """What must be the same for finished layers of a killed run to be used again; ``more`` counts too."""
    data = calibration_dataloader(cfg)
    return pruning_fingerprint(cfg, options.checkpoint, pruner.budget.ratio, data, **more)


def finished_layers(cfg: Config, pruner: Pruner, options: PruneOptions) -> LayerProgress | None:
    """Where finished layers are kept, by a pruner that goes through the layers, or in steps.

    What an earlier run has left is removed, unless the run goes on with it.
    """
    if options.dry_run or not pruner.layer_by_layer:
        return None
    key = progress_key(cfg, pruner, options)
    progress = LayerProgress(options.output_dir / 'progress', key.parts, key.older)
    if not options.resume:
        progress.clear()
    return progress


def finished_steps(
    cfg: Config, pruner: Pruner, checkpoint: str | None, folder: Path
) -> LayerProgress | None:
    """Where the steps of a curve are kept, which all its ratios share; None: they are scored once.

    Args:
        cfg: The config.
        pruner: Of a line of the curve; its ratio doesn't count.
        checkpoint: The weights to prune.
        folder: The curve's.
    """
    if pruner.rescoring is None:
        return None
    own = {k: v for k, v in pruning_settings(pruner.to_dict()).items() if k != 'rescoring'}
    key = pruning_fingerprint(cfg, checkpoint, None, calibration_dataloader(cfg), steps=own)
    return LayerProgress(folder / 'progress', key.parts)
