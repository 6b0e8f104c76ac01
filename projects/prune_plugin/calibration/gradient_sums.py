"""Sums of the gradients of weights over calibration batches."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .statistics import Statistic, Statistics


def sum_dtype(device: torch.device) -> torch.dtype:
    """Type of sums that are as large as the weights.

    float64 on CPUs, where rounding then hides the order of the batches and with it the number of ranks;
    float32 elsewhere, where memory is short.
    """
    return torch.float64 if device.type == 'cpu' else torch.float32


class GradientSums:
    """Adds each parameter's gradient to the statistics as soon as it is computed, then frees it.

    With ``by_batch`` gradients are kept until the batch has ended, since it may have to be repeated with
    another scale of the loss.

    Args:
        model: The model.
        names: Names of the parameters to record; no others require gradients meanwhile.
        statistics: Its ``gradients`` and ``squared_gradients`` are added to.
        kinds: With ``'squared_gradients'``, those are recorded too.
        by_batch: Whether to wait for :meth:`end_batch`.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Collection[str],
        statistics: Statistics,
        kinds: frozenset[Statistic],
        by_batch: bool,
    ):
        self.model, self.statistics, self.by_batch = model, statistics, by_batch
        self.parameters = {n: p for n, p in model.named_parameters() if n in names}
        self.samples = 0
        for name, parameter in self.parameters.items():
            dtype = sum_dtype(parameter.device)
            statistics.gradients[name] = torch.zeros_like(parameter, dtype=dtype)
            if Statistic.SQUARED_GRADIENTS in kinds:
                statistics.squared_gradients[name] = torch.zeros_like(parameter, dtype=dtype)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record every backward pass; frozen parameters require gradients, too, if they are named."""
        required = {parameter: parameter.requires_grad for parameter in self.model.parameters()}
        for parameter in required:
            parameter.requires_grad_(False)
        handles = []
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(True)
            if not self.by_batch:

                def add(parameter: Tensor, name: str = name) -> None:
                    self.add(name, parameter, 1.0)

                handles.append(parameter.register_post_accumulate_grad_hook(add))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter, requires_grad in required.items():
                parameter.requires_grad_(requires_grad)

    def add(self, name: str, parameter: Tensor, scale: float) -> None:
        """Add a parameter's gradient, of the loss times ``scale``, and free it."""
        total = self.statistics.gradients[name]
        gradient = parameter.grad.to(total.dtype)
        if scale != 1:
            gradient /= scale
        total.add_(gradient, alpha=self.samples)
        if name in self.statistics.squared_gradients:
            self.statistics.squared_gradients[name].addcmul_(gradient, gradient, value=self.samples)
        parameter.grad = None

    def begin_batch(self, samples: int) -> None:
        """Count the next gradients as those of this many samples."""
        self.samples = samples

    @property
    def pending(self) -> list[Tensor]:
        """The gradients that wait for the end of the batch."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def discard(self) -> None:
        """Forget the gradients of this batch."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def end_batch(self, scale: float) -> None:
        """Add what has waited; it is of the loss times ``scale``."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.add(name, parameter, scale)
