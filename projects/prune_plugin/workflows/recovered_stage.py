"""What training made of a pruned model, as stages of the report."""

from pathlib import Path

from mmengine.config import Config

from ..checkpoints.model_loading import load_model
from ..common.device import best_device
from ..common.progress import step
from ..evaluation.test_set import TestSet
from ..training.hooks.mask_hook import zero_share
from ..training.settings import RecoverySettings
from .run_report import MaskedStage, RecoveredStage, RunReport


def add_recovered(
    report: RunReport,
    cfg: Config,
    settings: RecoverySettings,
    test_set: TestSet,
    work_dir: Path,
) -> None:
    """Evaluate ``latest.pth`` of a recovery and add the stage ``recovered`` to a report."""
    latest = work_dir / 'latest.pth'
    with step('load'):
        loaded = load_model(cfg, str(latest), best_device())
    zeros = zero_share(loaded.checkpoint)
    before = report.pruned if zeros is None else report.dense
    with step('evaluate'):
        metrics = test_set.evaluate(loaded.model, 'recovered')
    report.recovered = RecoveredStage(
        **before.size,
        metrics=metrics,
        mode=settings.mode,
        epochs=settings.epochs,
        checkpoint=str(latest),
        trained='structured' if zeros is None else 'unstructured',
        zeros=zeros,
    )


def add_masked(report: RunReport, cfg: Config, test_set: TestSet, path: Path) -> None:
    """Evaluate the weight-level pruned model and add the stage ``masked`` to a report."""
    loaded = load_model(cfg, str(path), best_device())
    report.masked = MaskedStage(
        **report.dense.size,
        metrics=test_set.evaluate(loaded.model, 'masked'),
        zeros=zero_share(loaded.checkpoint),
    )
