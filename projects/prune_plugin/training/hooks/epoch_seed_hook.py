"""Random numbers that depend on the epoch alone, so that a resumed run repeats an unbroken one."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...common.random_state import seed_everything


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds Python, NumPy and PyTorch anew before every training epoch, differently on each rank.

    MMEngine restores weights, optimizer and schedule on resuming, but not the state of the random
    number generators: augmentation and dropout would go another way than without the break.
    """

    def before_train_epoch(self, runner) -> None:
        """Seed from the run's seed, the epoch and the rank."""
        seed_everything((runner.seed or 0) * 1_000_003 + runner.epoch * 1_009 + runner.rank)
