"""Training one module on given outputs, with masks, the same on every rank."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn

from ...calibration.residual_streams import first_tensor
from ...common.distributed import sum_over_ranks
from ...common.errors import UserError

#: Fraction of the steps in which the learning rate rises.
WARM_UP = 0.1


@dataclass(frozen=True)
class Settings:
    """How a module is trained; see :class:`.LocalReconstruction`."""

    epochs: int
    lr: float
    batches_per_step: int
    seed: int

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0: a linear rise, then a cosine to zero."""
        warm_up = max(1, round(WARM_UP * steps))
        if step < warm_up:
            return self.lr * (step + 1) / warm_up
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class Fit:
    """A module's training: Adam on the kept weights, in float32, by the mean squared error.

    Args:
        module: The module, in evaluation mode.
        parameters: Its parameters.
        keep: Of each, bool, True where kept.
        settings: How.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[nn.Parameter],
        keep: Sequence[Tensor],
        settings: Settings,
    ):
        self.module, self.settings = module, settings
        trained = [(p, k) for p, k in zip(parameters, keep, strict=True) if p.is_floating_point()]
        self.parameters = [p for p, _ in trained]
        self.keep = [k.to(p.device) for p, k in trained]
        # In half precision most steps would round to nothing.
        self.masters = [nn.Parameter(p.detach().float().clone()) for p in self.parameters]
        self.first = [p.detach().clone() for p in self.parameters]

    def run(
        self, name: str, given: Sequence[Any], targets: Sequence[Tensor], batches: int, number: int
    ) -> tuple[float, float]:
        """Train, in place.

        Args:
            name: The module, for messages.
            given: Its ``args`` and ``kwargs`` in each batch of this rank.
            targets: Its outputs there.
            batches: Number of batches over all ranks; this rank has every ``world size``-th.
            number: Seeds the order, with the settings' seed.

        Returns:
            The squared error relative to the targets' squares, before and after. Where it hasn't fallen,
            the weights are as before.

        Raises:
            UserError: the error isn't finite.
        """
        rank, world = dist.get_dist_info()
        squares = torch.stack([t.double().square().sum() for t in targets]).sum()
        norm = float(sum_over_ranks({'squares': squares})['squares']) or 1.0
        optimizer = torch.optim.Adam(self.masters, lr=self.settings.lr, betas=(0.9, 0.95))
        generator = torch.Generator().manual_seed(1_000_003 * self.settings.seed + number)
        steps = self.settings.epochs * math.ceil(batches / self.settings.batches_per_step)
        before, step = self.error(given, targets) / norm, 0
        asked = [p.requires_grad for p in self.parameters]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        try:
            for _ in range(self.settings.epochs):
                order = torch.randperm(batches, generator=generator)
                for chosen in order.split(self.settings.batches_per_step):
                    # The mean of the batches' errors, each relative to the mean target.
                    scale = batches / (len(chosen) * norm)
                    mine = [j // world for j in chosen.tolist() if j % world == rank]
                    for j in mine:
                        self.backward(given[j], targets[j], scale)
                    self.collect()
                    for group in optimizer.param_groups:
                        group['lr'] = self.settings.rate(step, steps)
                    optimizer.step()
                    self.install()
                    step += 1
        finally:
            for parameter, value in zip(self.parameters, asked, strict=True):
                parameter.requires_grad_(value)
                parameter.grad = None
        after = self.error(given, targets) / norm
        if not math.isfinite(after):
            raise UserError(
                f'prune_cfg.reconstruction: the error of {name} is {after} after training; lower lr, which '
                f'is {self.settings.lr:g}'
            )
        if after >= before:
            for parameter, value in zip(self.parameters, self.first, strict=True):
                parameter.data.copy_(value)
            return before, before
        return before, after

    def squared(self, given: Any, target: Tensor) -> Tensor:
        """The squared error of one batch."""
        output = first_tensor((self.module(*given.args, **given.kwargs),), {})
        assert output is not None
        return (output.float() - target).square().sum()

    @torch.no_grad()
    def error(self, given: Sequence[Any], targets: Sequence[Tensor]) -> float:
        """The squared error over all batches and ranks."""
        pairs = zip(given, targets, strict=True)
        total = torch.stack([self.squared(*pair).double() for pair in pairs]).sum()
        return float(sum_over_ranks({'total': total})['total'])

    def backward(self, given: Any, target: Tensor, scale: float) -> None:
        """Add the gradients of one batch's error times ``scale``."""
        with torch.enable_grad():
            (scale * self.squared(given, target)).backward()

    def collect(self) -> None:
        """Move the gradients, summed over all ranks, to the float32 weights."""
        gradients = {}
        for number, (parameter, master) in enumerate(
            zip(self.parameters, self.masters, strict=True)
        ):
            gradient = (
                torch.zeros_like(master) if parameter.grad is None else parameter.grad.float()
            )
            gradients[f'{number:06d}'] = gradient
            parameter.grad = None
        sum_over_ranks(gradients)
        for master, gradient, keep in zip(self.masters, gradients.values(), self.keep, strict=True):
            master.grad = gradient.mul_(keep)

    @torch.no_grad()
    def install(self) -> None:
        """Give the module the float32 weights; what isn't kept stays zero."""
        for parameter, master, keep in zip(self.parameters, self.masters, self.keep, strict=True):
            master.mul_(keep)
            parameter.copy_(master)
