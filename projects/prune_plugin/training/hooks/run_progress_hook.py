"""A training as a part of a run's progress."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...common.progress import PartOfRun, part_of_run

#: A training iteration beside one of validation: a backward pass takes twice a forward pass.
TRAINING_ITERATION = 3


def validations_left(runner: Runner) -> int:
    """Iterations of validation that a training still has."""
    if runner.val_loop is None:
        return 0
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    left = runner.max_epochs - runner.epoch if by_epoch else runner.max_iters - runner.iter
    return left // loop.val_interval * len(runner.val_dataloader)


class RunProgressHook(Hook):
    """Moves the bar of :func:`.progress.run_progress` on, iteration by iteration.

    The plugin gives it to its Runners; in a config it would have nothing to move.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.bar: PartOfRun | None = None

    def before_train(self, runner) -> None:
        """Count the iterations to come."""
        self.bar = part_of_run()
        if self.bar is not None:
            iterations = TRAINING_ITERATION * (runner.max_iters - runner.iter)
            self.task = self.bar.add_task('training', iterations + validations_left(runner))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """One is done."""
        if self.bar is not None:
            self.bar.advance(self.task, TRAINING_ITERATION)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """One is done."""
        if self.bar is not None:
            self.bar.advance(self.task)
