"""Ends training when gradients are NaN or infinite, before they reach the weights."""

import functools
from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.distributed.tensor import DTensor

from ...common.errors import UserError
from ...common.model_wrappers import unwrapped
from ..sharding.fully_shard import local
from ..skipped_steps import LIMIT, SkippedSteps


@HOOKS.register_module()
class FiniteGradientsHook(Hook):
    """Checks all gradients before they are clipped and applied, at the cost of one device-to-host copy.

    A gradient scaler (fp16) skips steps whose gradients aren't finite by itself, and tries a smaller
    scale: there training ends if it has skipped so many in a row that no scale helps.

    Raises:
        UserError: a gradient is NaN or infinite, and the weights are still those of the previous step; or
            all steps are skipped; or weights to train are float16.
    """

    def __init__(self):
        self._wrapper: OptimWrapper | None = None
        self._step: Callable[..., None] | None = None
        self._batch = 0
        self._skipped: SkippedSteps | None = None

    def before_train(self, runner) -> None:
        """Refuse to train float16 weights.

        A gradient scaler needs float32 weights; without one small gradients vanish, and so does what an
        optimizer adds to a denominator: AdamW's eps of 1e-8 is 0 in float16, and its first step NaN.
        """
        for name, parameter in unwrapped(runner).named_parameters():
            if parameter.requires_grad and parameter.dtype == torch.float16:
                raise UserError(
                    f'{name} is float16, in which weights cannot be trained: load the model in float32 or '
                    'bfloat16, or train adapters alone (prune_cfg.recovery.lora)'
                )

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Wrap the step of the current optimizer: some loops replace the optimizer during training."""
        self._batch = batch_idx
        wrapper = runner.optim_wrapper
        if wrapper is self._wrapper or not hasattr(wrapper, 'optimizer'):
            return
        self.after_train(runner)
        if hasattr(wrapper, 'loss_scaler'):
            self._skipped = SkippedSteps(wrapper.optimizer)
        self._wrap(runner, wrapper)

    def after_train(self, runner) -> None:
        """Restore the optimizer's step."""
        if self._wrapper is not None:
            self._wrapper.step = self._step
        if self._skipped is not None:
            self._skipped.remove()
        self._wrapper = self._skipped = None

    def _wrap(self, runner: Runner, wrapper: OptimWrapper) -> None:
        step = wrapper.step
        self._wrapper, self._step = wrapper, step

        @functools.wraps(step)  # learning-rate schedulers read its attributes
        def checked_step(**kwargs) -> None:
            if self._skipped is None:
                self.check(runner)
            step(**kwargs)
            if self._skipped is not None and self._skipped.after_step():
                raise UserError(
                    f'training ends in epoch {runner.epoch + 1}, batch {self._batch + 1}: gradients of the '
                    f'last {LIMIT} steps were NaN or infinite at every scale of the loss, so none was '
                    'made; check the weights and the data, and resume from an earlier checkpoint'
                )

        wrapper.step = checked_step

    @torch.no_grad()
    def check(self, runner: Runner) -> None:
        """Raise :class:`UserError` unless all gradients are finite."""
        parameters = unwrapped(runner).named_parameters()
        gradients = {name: p.grad for name, p in parameters if p.grad is not None}
        if not gradients:
            return
        # NaN and inf propagate through a sum, which takes one pass and no memory.
        sums = torch.stack([local(g).sum(dtype=torch.float32) for g in gradients.values()])
        finite = sums.isfinite()
        any_bad = (~finite.all()).float()
        if any(isinstance(gradient, DTensor) for gradient in gradients.values()):
            torch.distributed.all_reduce(any_bad)  # each rank has its shards only
        if not bool(any_bad):
            return
        bad = [name for name, good in zip(gradients, finite.tolist(), strict=True) if not good]
        raise UserError(
            f'training ends in epoch {runner.epoch + 1}, batch {self._batch + 1}: gradients of '
            f'{len(bad)} of {len(gradients)} tensors are NaN or infinite ({", ".join(bad[:3])}'
            f'{", ..." * (len(bad) > 3)}); check that batch, or use a smaller learning rate, and resume '
            'from the last checkpoint'
        )
