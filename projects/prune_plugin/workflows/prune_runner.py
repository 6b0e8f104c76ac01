"""Pruning from other projects' own tools: ``runner_type='PruneRunner'``."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS

from .run_report import RunReport


@RUNNERS.register_module()
class PruneRunner:
    """Does for ``tools/train.py`` and ``tools/test.py`` of mmdet and mmdet3d what the tools here do.

    ``train`` prunes what ``load_from`` names as the config's ``prune_cfg`` says, then trains it;
    ``test`` builds a slim checkpoint slim. A Runner builds its model before it knows of the checkpoint or
    of what is wanted, so this is none: it keeps the config until it is told, and has the Runner built
    then. Of a Runner's methods it has no others.

    Args:
        cfg: The whole config; no key of it.

    Example:
        >>> custom_imports = dict(imports=['projects.prune_plugin'])
        >>> runner_type = 'PruneRunner'
        >>> prune_cfg = dict(budget=dict(type='params', ratio=0.3))
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'PruneRunner':
        """Keep a config, with which MMEngine's tools have merged their command lines."""
        cfg = deepcopy(cfg)
        cfg.pop('runner_type', None)
        return cls(cfg)

    def prepared(self) -> tuple[Config, str]:
        """A copy of the config, and its launcher, whose process group runs."""
        from ..checkpoints.checkpoint_file import use_safe_loader
        from ..common.distributed import init
        from ..common.group_settings import dist_cfg_of

        cfg = deepcopy(self.cfg)
        launcher = cfg.get('launcher') or 'none'
        use_safe_loader()
        init(launcher, dist_cfg_of(cfg))
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
        return cfg, launcher

    def train(self) -> RunReport | None:
        """Prune where there is a ``prune_cfg``, and train; see :func:`training.train`.

        Returns:
            The report, if there was a ``prune_cfg``.
        """
        from ..common.directory_lock import locked
        from .train import check_resumable, train

        cfg, launcher = self.prepared()
        resumed = cfg.get('resume')
        if resumed and cfg.get('load_from'):
            cfg.resume_path = cfg.load_from
        with locked(cfg.work_dir, 'work_dir'):
            if resumed and not cfg.get('load_from') and cfg.get('prune_cfg') is not None:
                check_resumable(cfg.work_dir)
            return train(cfg, launcher)

    def test(self) -> dict[str, Any]:
        """The metrics of ``load_from``, dense or slim; see :func:`evaluate`."""
        from .evaluate import evaluate

        cfg, launcher = self.prepared()
        return evaluate(cfg, cfg.get('load_from'), None, launcher)
