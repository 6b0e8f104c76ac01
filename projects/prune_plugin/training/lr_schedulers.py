"""The learning rate of recovery: a warm-up that fits any run, then a cosine to zero, or no change."""

import math
from collections.abc import Callable

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.registry import PARAM_SCHEDULERS


def fitting_warmup(total: int, warmup: int) -> int:
    """``warmup`` steps, or a tenth of a run of ``total`` steps that isn't longer than that."""
    return total // 10 if total <= warmup else warmup


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Factor on the learning rate at ``step`` of ``total``, in (0, 1].

    Rises linearly over the :func:`fitting_warmup`, then follows half a cosine towards zero.
    """
    warmup = fitting_warmup(total, warmup)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def warmup_constant(step: int, total: int, warmup: int) -> float:
    """As :func:`warmup_cosine`, but after the warm-up it stays 1."""
    warmup = fitting_warmup(total, warmup)
    return min(1.0, (step + 1) / (warmup + 1))


class WarmupParamScheduler(_ParamScheduler):
    """Any parameter by a factor of step, number of steps, and steps of warm-up.

    Args:
        optimizer: Optimizer or OptimWrapper.
        param_name: The parameter.
        total: Steps of the run.
        warmup: Steps of warm-up asked for.
    """

    factor: Callable[[int, int, int], float]

    def __init__(self, optimizer, param_name: str, total: int, warmup: int, **kwargs):
        self.total, self.warmup = total, warmup
        super().__init__(optimizer, param_name, **kwargs)

    def _get_value(self):
        factor = type(self).factor(min(self.last_step, self.total), self.total, self.warmup)
        return [base * factor for base in self.base_values]

    @classmethod
    def build_iter_from_epoch(cls, *args, end: int, epoch_length: int, by_epoch=True, **kwargs):
        """Build with ``end`` epochs of ``epoch_length`` iterations."""
        return cls(*args, total=end * epoch_length, by_epoch=False, **kwargs)


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, WarmupParamScheduler):
    """Learning rate by :func:`warmup_cosine`, iteration by iteration.

    Args:
        kwargs: ``end`` and ``warmup``, as below (``end`` in epochs under ``by_epoch=True``), and what
            MMEngine's schedulers of the learning rate take.

    Example:
        >>> param_scheduler = dict(type='WarmupCosineLR', end=12, warmup=500, by_epoch=True,
        ...     convert_to_iter_based=True)
    """

    factor = staticmethod(warmup_cosine)


@PARAM_SCHEDULERS.register_module()
class WarmupConstantLR(LRSchedulerMixin, WarmupParamScheduler):
    """Learning rate by :func:`warmup_constant`, iteration by iteration.

    Args:
        kwargs: As of :class:`WarmupCosineLR`.

    Example:
        >>> param_scheduler = dict(type='WarmupConstantLR', end=12, warmup=500, by_epoch=True,
        ...     convert_to_iter_based=True)
    """

    factor = staticmethod(warmup_constant)
