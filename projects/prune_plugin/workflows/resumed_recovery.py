"""A recovery that ``tools/train.py`` has gone on with: into the report of its pruning."""

from copy import deepcopy
from pathlib import Path

from mmengine import dist
from mmengine.config import Config

from ..checkpoints.checkpoint_file import load_file
from ..evaluation.test_set import TestSet
from ..training.config_edits import FOLDERS
from ..training.settings import RecoverySettings
from .options import PruneResult
from .recovered_stage import add_recovered
from .reports import read_explorer
from .run_report import RunReport
from .save_results import read_report, write_report


def report_recovery(cfg: Config, origin: str | None) -> RunReport | None:
    """Evaluate a finished recovery and add it to the report beside its work directory, if there is one.

    Args:
        cfg: What was trained: the config that the pruning left in the work directory.
        origin: The pruned checkpoint that it started from; None for other trainings.

    Returns:
        The report, if this was a recovery whose pruning left one.
    """
    work_dir = Path(cfg.work_dir).absolute()
    modes = {folder: mode for mode, folder in FOLDERS.items()}
    mode = modes.get(work_dir.name)
    if mode is None or origin is None or Path(origin).absolute().parent != work_dir.parent:
        return None
    report = read_report(work_dir.parent)
    if report is None:
        return None
    start = load_file(origin)['meta'].get('epoch', 0) if mode == 'fine_tune' else 0
    settings = RecoverySettings(mode=mode, epochs=cfg.train_cfg.max_epochs - start)
    add_recovered(report, without_wrappers(cfg), settings, TestSet(cfg), work_dir)
    if dist.is_main_process():
        explorer = read_explorer(work_dir.parent / 'report.html')
        write_report(PruneResult(report, explorer=explorer), work_dir.parent)
    return report


def without_wrappers(cfg: Config) -> Config:
    """A copy of a recovery's config with the dense model that it trains slim, or with adapters."""
    cfg = deepcopy(cfg)
    while cfg.model.get('type') in ('SlimModel', 'LoraModel'):
        cfg.model = cfg.model.model
    return cfg
