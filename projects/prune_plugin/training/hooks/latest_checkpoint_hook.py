"""``latest.pth``: a symbolic link to the newest checkpoint."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...common.fileio import replace_symlink


def renew_latest(folder: Path) -> None:
    """Point the link ``latest.pth`` in a folder to the checkpoint named in its file ``last_checkpoint``."""
    pointer = folder / 'last_checkpoint'
    newest = Path(pointer.read_text().strip()).name if pointer.is_file() else ''
    if newest:  # else nothing was saved, or the run was killed while writing the pointer
        replace_symlink(folder / 'latest.pth', newest)


@HOOKS.register_module()
class LatestCheckpointHook(Hook):
    """Points ``latest.pth`` in the work directory, a relative link, to the checkpoint saved last."""

    priority = 'LOWEST'

    def after_train_epoch(self, runner) -> None:
        """Update the link."""
        self._renew(runner)

    def after_train(self, runner) -> None:
        """Update the link."""
        self._renew(runner)

    @master_only
    def _renew(self, runner) -> None:
        renew_latest(Path(runner.work_dir))
