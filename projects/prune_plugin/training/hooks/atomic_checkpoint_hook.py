"""Training checkpoints that are written atomically."""

from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from ...common.fileio import atomic_write
from .latest_checkpoint_hook import renew_latest


class AtomicLocalBackend(LocalBackend):
    """Local files that are written atomically, and not removed at once.

    Attributes:
        outdated: Files that :meth:`remove` was called for.
    """

    def __init__(self):
        self.outdated: list[Path] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file atomically, and make its folder."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(filepath, 'wb') as file:
            file.write(obj)

    def remove(self, filepath: str | Path) -> None:
        """Add a file to :attr:`outdated`, without removing it."""
        self.outdated.append(Path(filepath))


register_backend('atomic_files', AtomicLocalBackend, force=True)


@HOOKS.register_module(name=['AtomicCheckpointHook', 'WholeCheckpointHook'])
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, with atomic writes: a kill or a full disk while saving loses nothing.

    MMEngine's writes directly to the checkpoint's file and removes older checkpoints (``max_keep_ckpts``,
    ``save_best``) before. This one removes them after the new one is complete.

    Args:
        **kwargs: See MMEngine's ``CheckpointHook``; ``backend_args`` is set here.
    """

    def __init__(self, **kwargs):
        super().__init__(backend_args=dict(backend='atomic_files'), **kwargs)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated(runner)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated(runner)

    def _remove_outdated(self, runner) -> None:
        """Remove outdated checkpoints, after ``latest.pth`` points to a newer one."""
        if self.file_backend.outdated:
            renew_latest(Path(runner.work_dir))
        bests = getattr(self, 'best_ckpt_path_dict', {}).values()
        kept = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *bests}
        while self.file_backend.outdated:
            path = self.file_backend.outdated.pop()
            if str(path) not in kept:
                path.unlink(missing_ok=True)


def use_atomic_checkpoints(cfg: Config) -> None:
    """Replace a config's CheckpointHook by an :class:`AtomicCheckpointHook`.

    A hook of another type, or one that writes to another storage backend, is kept.
    """
    hooks = dict(cfg.get('default_hooks') or {})
    hook = dict(hooks.get('checkpoint', dict(type='CheckpointHook', interval=1)) or {})
    other_backend = hook.get('backend_args') or hook.get('file_client_args')
    local = '://' not in str(cfg.work_dir)
    if hook.get('type') == 'CheckpointHook' and not other_backend and local:
        hook.pop('backend_args', None)
        cfg.default_hooks = {**hooks, 'checkpoint': {**hook, 'type': 'AtomicCheckpointHook'}}
