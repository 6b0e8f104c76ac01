"""Learning-rate schedules of recovery: linear warm-up, then a half cosine to zero or a constant rate."""

import math
from collections.abc import Callable

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.registry import PARAM_SCHEDULERS


def fitting_warmup(total: int, warmup: int) -> int:
    """Steps of warm-up: ``warmup``, or a tenth of ``total`` if the run isn't longer than ``warmup``."""
    return total // 10 if total <= warmup else warmup


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Factor on the learning rate at ``step`` (from 0) of ``total``, in (0, 1].

    It rises linearly over :func:`fitting_warmup` steps, then decreases to zero along a half cosine.
    """
    warmup = fitting_warmup(total, warmup)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def warmup_constant(step: int, total: int, warmup: int) -> float:
    """As :func:`warmup_cosine`, but constant at 1 after the warm-up."""
    warmup = fitting_warmup(total, warmup)
    return min(1.0, (step + 1) / (warmup + 1))


class WarmupParamScheduler(_ParamScheduler):
    """Base of the schedulers that multiply an optimizer parameter by a function of the step.

    Args:
        optimizer: Optimizer or OptimWrapper.
        param_name: Name of the parameter, such as ``'lr'``.
        total: Steps of the run.
        warmup: Steps of warm-up; see :func:`fitting_warmup`.
        **kwargs: See MMEngine's ``_ParamScheduler``.

    Class attributes:
        factor: ``(step, total, warmup) -> factor``.
    """

    factor: Callable[[int, int, int], float]

    def __init__(self, optimizer, param_name: str, *, total: int, warmup: int, **kwargs):
        self.total, self.warmup = total, warmup
        super().__init__(optimizer, param_name, **kwargs)

    def _get_value(self):
        factor = type(self).factor(min(self.last_step, self.total), self.total, self.warmup)
        return [base * factor for base in self.base_values]

    @classmethod
    def build_iter_from_epoch(cls, *args, end: int, epoch_length: int, by_epoch=True, **kwargs):
        """Build a scheduler by iterations for ``end`` epochs of ``epoch_length`` iterations."""
        return cls(*args, total=end * epoch_length, by_epoch=False, **kwargs)


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, WarmupParamScheduler):
    """Multiplies the learning rate by :func:`warmup_cosine` in every iteration.

    Args:
        kwargs: ``end`` (in epochs with ``by_epoch=True``) and ``warmup`` (in iterations) as in the example,
            and the arguments of MMEngine's learning-rate schedulers.

    Example:
        >>> param_scheduler = dict(type='WarmupCosineLR', end=12, warmup=500, by_epoch=True,
        ...     convert_to_iter_based=True)
    """

    factor = staticmethod(warmup_cosine)


@PARAM_SCHEDULERS.register_module()
class WarmupConstantLR(LRSchedulerMixin, WarmupParamScheduler):
    """Multiplies the learning rate by :func:`warmup_constant` in every iteration.

    Args:
        kwargs: As for :class:`WarmupCosineLR`.

    Example:
        >>> param_scheduler = dict(type='WarmupConstantLR', end=12, warmup=500, by_epoch=True,
        ...     convert_to_iter_based=True)
    """

    factor = staticmethod(warmup_constant)
