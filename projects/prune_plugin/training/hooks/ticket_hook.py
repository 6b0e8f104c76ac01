"""Carries the state of an iterative pruning loop through checkpoints."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class TicketHook(Hook):
    """Registered by :class:`IterativePruneLoop` itself.

    Args:
        loop: The loop.
    """

    priority = 'LOW'

    def __init__(self, loop):
        self.loop = loop

    def before_run(self, runner) -> None:
        """From now on the loop's epochs are those of all states."""
        self.loop.count_all()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what the loop needs to go on."""
        checkpoint['ticket'] = self.loop.to_dict()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take what an earlier run has left; a checkpoint that only gives weights has nothing."""
        if runner._resume:
            self.loop.found = checkpoint.get('ticket')

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Tell the loop how good the model is."""
        self.loop.metrics = dict(metrics or {})
