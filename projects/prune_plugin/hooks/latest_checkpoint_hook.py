"""``latest.pth``: a stable name for the newest checkpoint."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..files import point


@HOOKS.register_module()
class LatestCheckpointHook(Hook):
    """Points ``latest.pth`` in the work directory to the checkpoint saved last (a relative link)."""

    priority = 'LOWEST'

    def after_train_epoch(self, runner) -> None:
        """Renew the link."""
        self._renew(runner)

    def after_train(self, runner) -> None:
        """Renew the link."""
        self._renew(runner)

    @master_only
    def _renew(self, runner) -> None:
        folder = Path(runner.work_dir)
        pointer = folder / 'last_checkpoint'
        newest = Path(pointer.read_text().strip()).name if pointer.is_file() else ''
        if not newest:  # nothing saved, or killed while the pointer was written
            return
        point(folder / 'latest.pth', newest)
