"""Says so where a training that is gone on with has reached its end already."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop


@HOOKS.register_module()
class FinishedTrainingHook(Hook):
    """Warns before a training that has no epoch left, as after ``--resume`` of a finished one.

    MMEngine ends such a training without a word.
    """

    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        """Compare what has been trained with what is asked for."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            unit, key, done, asked = 'iteration', 'max_iters', loop.iter, loop.max_iters
        else:
            unit, key, done, asked = 'epoch', 'max_epochs', loop.epoch, loop.max_epochs
        if done >= asked:
            text = f'already at {unit} {done} of {asked}: nothing to train; raise train_cfg.{key} to go on'
            print_log(text, 'current', logging.WARNING)
