"""Fine-tuning goes on where the dense model's training stopped."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS


@HOOKS.register_module()
class CarryOverHook(Hook):
    """Takes the epoch number and the (already cut) optimizer state over from ``load_from``.

    Unlike ``resume=True`` it leaves the new learning rate and schedule alone. When the fine-tuning
    itself is resumed it does nothing.

    Args:
        optimizer: Whether to take the optimizer state; False if other parameters are trained now.
    """

    def __init__(self, optimizer: bool = True):
        self.optimizer = optimizer

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Set the loop's counters and the optimizer's state."""
        if runner._resume:
            return
        meta = checkpoint.get('meta', {})
        runner.train_loop._epoch = meta.get('epoch', 0)
        runner.train_loop._iter = runner.train_loop._epoch * len(runner.train_loop.dataloader)
        state = (checkpoint.get('optimizer') or {}).get('state') if self.optimizer else None
        if state:
            optimizer = runner.optim_wrapper.optimizer
            groups = optimizer.state_dict()['param_groups']
            optimizer.load_state_dict({'state': state, 'param_groups': groups})
        print_log(
            f'fine-tuning goes on after epoch {runner.train_loop._epoch}, '
            f'{"with" if state else "without"} optimizer state',
            'current',
        )
