"""Random numbers that depend only on the epoch, so that a resumed run equals an uninterrupted one."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...common.random_state import seed_everything


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds Python, NumPy and PyTorch before every training epoch, differently on each rank.

    On resuming, MMEngine restores weights, optimizer and schedules, but not the state of the random number
    generators: augmentation and dropout would differ from those of an uninterrupted run.
    """

    def before_train_epoch(self, runner) -> None:
        """Seed from the run's seed, the epoch and the rank."""
        seed_everything((runner.seed or 0) * 1_000_003 + runner.epoch * 1_009 + runner.rank)
