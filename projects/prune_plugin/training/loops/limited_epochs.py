"""Epochs of at most so many iterations."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader


class LimitedLoader:
    """A dataloader that ends after ``max_steps`` batches, and says so by its length.

    All that asks a dataloader how long an epoch is (the schedule of the learning rate, the log, hooks)
    so gets the right answer. Everything else is the dataloader's own.

    Args:
        loader: The dataloader. One that shuffles gives other batches in each epoch.
        max_steps: Batches per epoch, at most.
    """

    def __init__(self, loader: DataLoader, max_steps: int):
        self.loader, self.max_steps = loader, max_steps

    def __len__(self) -> int:
        return min(len(self.loader), self.max_steps)

    def __iter__(self) -> Iterator[Any]:
        return islice(self.loader, self.max_steps)

    def __getattr__(self, name: str) -> Any:
        if name == 'loader':  # while it is being copied or unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)


@LOOPS.register_module()
class LimitedEpochTrainLoop(EpochBasedTrainLoop):
    """Trains by epochs that end after ``max_steps`` iterations; evaluation and saving follow as usual.

    Args:
        runner: The runner.
        dataloader: A dataloader or its config.
        max_epochs: Epochs to train.
        max_steps: Iterations per epoch, at most.
        **kwargs: See MMEngine's ``EpochBasedTrainLoop``.

    Example:
        >>> train_cfg = dict(type='LimitedEpochTrainLoop', max_epochs=3, max_steps=2500)
    """

    def __init__(self, runner, dataloader, max_epochs: int, max_steps: int, **kwargs):
        if isinstance(dataloader, dict):
            different = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=different
            )
        super().__init__(runner, LimitedLoader(dataloader, max_steps), max_epochs, **kwargs)
