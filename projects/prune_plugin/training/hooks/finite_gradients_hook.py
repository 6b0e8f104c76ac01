"""A training that gets NaN gradients ends before they reach the weights."""

import functools

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.distributed.tensor import DTensor

from ...common.errors import UserError
from ...common.model_wrappers import unwrapped
from ..sharding.fully_shard import local


@HOOKS.register_module()
class FiniteGradientsHook(Hook):
    """Looks at all gradients before they are clipped and applied; one number is read from the device.

    Under a gradient scaler (fp16) it doesn't look: that one leaves such steps out by itself.

    Raises:
        UserError: a gradient is NaN or infinite; the weights are still those of the step before.
    """

    def __init__(self):
        self._wrapper, self._step, self._batch = None, None, 0

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Watch the optimizer of the moment: some loops take a new one now and then."""
        self._batch = batch_idx
        wrapper = runner.optim_wrapper
        if wrapper is self._wrapper or not hasattr(wrapper, 'optimizer'):
            return
        self.after_train(runner)
        if not hasattr(wrapper, 'loss_scaler'):
            self._watch(runner, wrapper)

    def after_train(self, runner) -> None:
        """Watch no more."""
        if self._wrapper is not None:
            self._wrapper.step = self._step
        self._wrapper = None

    def _watch(self, runner, wrapper) -> None:
        self._wrapper, self._step = wrapper, wrapper.step

        @functools.wraps(wrapper.step)  # schedulers know it by its attributes
        def checked_step(**kwargs) -> None:
            self.check(runner)
            self._step(**kwargs)

        wrapper.step = checked_step

    @torch.no_grad()
    def check(self, runner) -> None:
        """Raise :class:`UserError` unless all gradients are finite."""
        parameters = unwrapped(runner).named_parameters()
        gradients = {name: p.grad for name, p in parameters if p.grad is not None}
        if not gradients:
            return
        # NaN and inf survive in a sum, which takes one pass and no memory.
        sums = torch.stack([local(g).sum(dtype=torch.float32) for g in gradients.values()])
        fine = sums.isfinite()
        spoilt = (~fine.all()).float()
        if any(isinstance(gradient, DTensor) for gradient in gradients.values()):
            torch.distributed.all_reduce(spoilt)  # each rank sees its part
        if not bool(spoilt):
            return
        bad = [name for name, good in zip(gradients, fine.tolist(), strict=True) if not good]
        raise UserError(
            f'training ends in epoch {runner.epoch + 1}, batch {self._batch + 1}: gradients of '
            f'{len(bad)} of {len(gradients)} tensors are NaN or infinite ({", ".join(bad[:3])}'
            f'{", ..." * (len(bad) > 3)}); check that batch, or take a smaller learning rate, and go on '
            'from the last checkpoint'
        )
