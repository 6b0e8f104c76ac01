"""Regularizes units that are scheduled for removal towards zero while training."""

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor

from ...common.model_wrappers import unwrapped

#: (parameter name, dimension, indices (units, indices per unit)) of the units of one group.
Rows = Sequence[tuple[str, int, Tensor]]


class Penalty(Protocol):
    """What the hook asks of a penalty; see :class:`projects.prune_plugin.Penalty`."""

    strength: float
    needs_norms: bool

    def at(self, step: int, steps: int) -> float:
        """The factor at a step of a state."""

    def factors(self, norms: Tensor | None) -> Tensor | float:
        """Factors on the units' weights."""


class RegularizedUnits:
    """The units of one group that are scheduled for removal.

    Args:
        parts: (parameter, dimension, indices (units, indices per unit)).
        penalty: Gives the direction of the gradient.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, int, Tensor]], penalty: Penalty):
        self.penalty = penalty
        self.parts = [
            (parameter, dim, rows.flatten().to(parameter.device), rows.shape[1])
            for parameter, dim, rows in parts
        ]

    def norms(self) -> Tensor:
        """Euclidean norm of each unit over all its parameters, (units,)."""
        squares = []
        for parameter, dim, rows, each in self.parts:
            weights = parameter.detach().index_select(dim, rows).float().square()
            along = weights.movedim(dim, 0).reshape(len(rows), -1).sum(1)
            squares.append(along.view(-1, each).sum(1))
        return torch.stack(squares).sum(0).sqrt()

    def add(self, strength: float, scale: Tensor | None = None) -> None:
        """Add the penalty's gradient.

        Args:
            strength: Its factor.
            scale: By which the optimizer will divide all gradients; None: by nothing.
        """
        factors = self.penalty.factors(self.norms() if self.penalty.needs_norms else None)
        for parameter, dim, rows, each in self.parts:
            if parameter.grad is None:
                continue
            gradient = parameter.detach().index_select(dim, rows)
            if isinstance(factors, Tensor):
                shape = [1] * gradient.dim()
                shape[dim] = -1
                gradient = gradient * factors.repeat_interleave(each).view(shape).to(gradient)
            if scale is not None:
                gradient = gradient * scale
            parameter.grad.index_add_(dim, rows, gradient.to(parameter.grad), alpha=strength)


@HOOKS.register_module()
class PenaltyHook(Hook):
    """Adds a penalty's gradient to units scheduled for removal, right before every optimizer step.

    That is after gradients were averaged over ranks, unscaled and clipped, so that each rank adds the same
    and clipping doesn't weaken the penalty. An element that two such units share is regularized by both.

    The scalars ``penalty`` (the factor) and ``leaving_norm`` (Euclidean norm of all units scheduled for
    removal) are logged at the log's interval.

    Args:
        penalty: The penalty, built.
        interval: Iterations between two logs of the norm.
    """

    priority = 'NORMAL'

    def __init__(self, penalty: Penalty, interval: int = 10):
        self.penalty, self.interval = penalty, interval
        self.groups: list[RegularizedUnits] = []
        self.first = self.steps = self.step = 0
        self._handle = None

    def begin(self, runner, scheduled: Iterable[Rows], first: int, steps: int) -> None:
        """Regularize these units from now on, and no others.

        Args:
            runner: Its optimizer is the one to watch.
            scheduled: Rows of the units of each group.
            first: Iteration at which the state began.
            steps: Iterations of the state.
        """
        self.end()
        parameters = dict(unwrapped(runner).named_parameters())
        self.groups = [
            RegularizedUnits(
                [(parameters[n], dim, rows) for n, dim, rows in parts if n in parameters],
                self.penalty,
            )
            for parts in scheduled
        ]
        self.first, self.steps = first, steps
        self.step = runner.iter - first
        if not self.groups:
            return
        optimizer = runner.optim_wrapper.optimizer
        largest = self.largest_rate(optimizer) * self.penalty.strength
        if largest > 1:
            print_log(
                f'prune_cfg.penalty.strength x learning rate is {largest:.3g}; above 1 it overshoots: '
                'lower one of them',
                'current',
                logging.WARNING,
            )
        self._handle = optimizer.register_step_pre_hook(self.add_gradients)

    def largest_rate(self, optimizer: torch.optim.Optimizer) -> float:
        """The largest learning rate of what is regularized, as its schedule gives it after a warm-up."""
        regularized = {id(parameter) for group in self.groups for parameter, *_ in group.parts}
        rates = [
            group.get('initial_lr', group['lr'])
            for group in optimizer.param_groups
            if any(id(parameter) in regularized for parameter in group['params'])
        ]
        return max(rates, default=0.0)  # frozen parameters may be in no group

    def end(self) -> None:
        """Regularize no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self.groups = None, []

    @torch.no_grad()
    def add_gradients(self, optimizer, args, kwargs) -> None:
        """Add the gradients.

        A gradient scaler leaves it to fused optimizers to divide by its scale.
        """
        strength = self.penalty.at(self.step, self.steps)
        for group in self.groups:
            group.add(strength, getattr(optimizer, 'grad_scale', None))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Know how far the state is."""
        self.step = runner.iter - self.first

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Log the factor and the norm of the units."""
        if not self.groups or not self.every_n_train_iters(runner, self.interval):
            return
        hub = runner.message_hub
        hub.update_scalar('train/penalty', self.penalty.at(self.step, self.steps))
        norm = torch.cat([group.norms() for group in self.groups]).norm()
        hub.update_scalar('train/leaving_norm', float(norm))
