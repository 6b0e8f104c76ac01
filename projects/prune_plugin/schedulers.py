"""The learning rate of recovery: a warm-up that fits any run, then a cosine to zero."""

import math

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.registry import PARAM_SCHEDULERS


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Factor on the learning rate at ``step`` of ``total``, in (0, 1].

    Rises linearly over ``warmup`` steps, or over a tenth of the run if it isn't longer than that,
    then follows half a cosine towards zero.
    """
    if total <= warmup:
        warmup = total // 10
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class WarmupCosineParamScheduler(_ParamScheduler):
    """Any parameter by :func:`warmup_cosine`.

    Args:
        optimizer: Optimizer or OptimWrapper.
        param_name: The parameter.
        total: Steps of the run.
        warmup: Steps of warm-up asked for.
    """

    def __init__(self, optimizer, param_name: str, total: int, warmup: int, **kwargs):
        self.total, self.warmup = total, warmup
        super().__init__(optimizer, param_name, **kwargs)

    def _get_value(self):
        factor = warmup_cosine(min(self.last_step, self.total), self.total, self.warmup)
        return [base * factor for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, WarmupCosineParamScheduler):
    """Learning rate by :func:`warmup_cosine`, iteration by iteration.

    Args:
        kwargs: ``end`` and ``warmup``, as below (``end`` in epochs under ``by_epoch=True``), and what
            MMEngine's schedulers of the learning rate take.

    Example:
        >>> param_scheduler = dict(type='WarmupCosineLR', end=12, warmup=500, by_epoch=True,
        ...     convert_to_iter_based=True)
    """

    @classmethod
    def build_iter_from_epoch(cls, *args, end: int, epoch_length: int, by_epoch=True, **kwargs):
        """Build with ``end`` epochs of ``epoch_length`` iterations."""
        return cls(*args, total=end * epoch_length, by_epoch=False, **kwargs)
