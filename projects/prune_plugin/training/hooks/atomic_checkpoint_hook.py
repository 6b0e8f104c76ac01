"""Training checkpoints that are whole at every moment."""

from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from ...common.fileio import atomic_write
from .latest_checkpoint_hook import renew_latest


class AtomicLocalBackend(LocalBackend):
    """Local files: each is written whole or not at all, and what is to be removed is only noted."""

    def __init__(self):
        self.outdated: list[Path] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(filepath, 'wb') as file:
            file.write(obj)

    def remove(self, filepath: str | Path) -> None:
        """Note a file for :attr:`outdated`."""
        self.outdated.append(Path(filepath))


register_backend('atomic_files', AtomicLocalBackend, force=True)


@HOOKS.register_module(name=['AtomicCheckpointHook', 'WholeCheckpointHook'])
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, but a kill or a full disk while it saves loses nothing.

    That one writes under the checkpoint's own name, and removes an older one (``max_keep_ckpts``,
    ``save_best``) before it writes the new one. This one removes it afterwards.

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
        """Remove what newer files have taken the place of; ``latest.pth`` names one of those already."""
        if self.file_backend.outdated:
            renew_latest(Path(runner.work_dir))
        bests = getattr(self, 'best_ckpt_path_dict', {}).values()
        kept = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *bests}
        while self.file_backend.outdated:
            path = self.file_backend.outdated.pop()
            if str(path) not in kept:
                path.unlink(missing_ok=True)


def use_atomic_checkpoints(cfg: Config) -> None:
    """Have a config's training save with a :class:`AtomicCheckpointHook`.

    A hook of another type, or one that writes to a storage of its own, stays.
    """
    hooks = dict(cfg.get('default_hooks') or {})
    saving = dict(hooks.get('checkpoint', dict(type='CheckpointHook', interval=1)) or {})
    own = saving.get('backend_args') or saving.get('file_client_args')
    if saving.get('type') == 'CheckpointHook' and not own and '://' not in str(cfg.work_dir):
        saving.pop('backend_args', None)
        cfg.default_hooks = {**hooks, 'checkpoint': {**saving, 'type': 'AtomicCheckpointHook'}}
