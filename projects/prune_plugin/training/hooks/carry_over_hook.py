"""Fine-tuning that continues the dense model's training."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS


@HOOKS.register_module()
class CarryOverHook(Hook):
    """Takes the epoch number and the optimizer state, already slim, from the ``load_from`` checkpoint.

    Unlike ``resume=True`` it keeps the new learning rate and schedule. It does nothing when the
    fine-tuning itself is resumed.

    Args:
        optimizer: Whether to load the optimizer state; False if other parameters are trained now.
    """

    def __init__(self, optimizer: bool = True):
        self.optimizer = optimizer

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Set the train loop's epoch and iteration, and the optimizer's state."""
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
            f'fine-tuning continues after epoch {runner.train_loop._epoch}, '
            f'{"with" if state else "without"} optimizer state',
            'current',
        )
