"""Training epochs with a limited number of iterations."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader


class LimitedLoader:
    """Wraps a dataloader to end after ``max_steps`` batches; its length is limited accordingly.

    So whatever reads the length of an epoch from the dataloader (learning-rate schedules, logs, hooks) is
    correct. All other attributes are those of the wrapped dataloader.

    Args:
        loader: The dataloader. If it shuffles, each epoch has different batches.
        max_steps: Maximum number of batches per epoch.
    """

    def __init__(self, loader: DataLoader, max_steps: int):
        self.loader, self.max_steps = loader, max_steps

    def __len__(self) -> int:
        return min(len(self.loader), self.max_steps)

    def __iter__(self) -> Iterator[Any]:
        return islice(self.loader, self.max_steps)

    def __getattr__(self, name: str) -> Any:
        if name == 'loader':  # not set yet while being copied or unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)


@LOOPS.register_module()
class LimitedEpochTrainLoop(EpochBasedTrainLoop):
    """Trains by epochs of at most ``max_steps`` iterations; evaluation and saving follow as usual.

    Args:
        runner: The runner.
        dataloader: A dataloader or its config.
        max_epochs: Epochs to train.
        max_steps: Maximum number of iterations per epoch.
        **kwargs: See MMEngine's ``EpochBasedTrainLoop``.

    Example:
        >>> train_cfg = dict(type='LimitedEpochTrainLoop', max_epochs=3, max_steps=2500)
    """

    def __init__(self, runner, dataloader, max_epochs: int, max_steps: int, **kwargs):
        if isinstance(dataloader, dict):
            diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        super().__init__(runner, LimitedLoader(dataloader, max_steps), max_epochs, **kwargs)
