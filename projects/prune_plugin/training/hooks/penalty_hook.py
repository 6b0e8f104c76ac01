"""Pulls leaving units towards zero while training."""

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
        """Factors on the units' own pull."""


class Pull:
    """The leaving units of one group.

    Args:
        parts: (parameter, dimension, indices (units, indices per unit)).
        penalty: Says in which direction they are pulled.
    """

    def __init__(self, parts: Sequence[tuple[Tensor, int, Tensor]], penalty: Penalty):
        self.penalty = penalty
        self.parts = [
            (parameter, dim, rows.flatten().to(parameter.device), rows.shape[1])
            for parameter, dim, rows in parts
        ]

    def norms(self) -> Tensor:
        """Euclidean norm of each unit over all its parameters, (units,)."""
        total: Tensor | float = 0.0
        for parameter, dim, rows, each in self.parts:
            own = parameter.detach().index_select(dim, rows).float().square()
            along = own.movedim(dim, 0).reshape(len(rows), -1).sum(1)
            total = total + along.view(-1, each).sum(1)
        return total.sqrt()

    def add(self, strength: float) -> None:
        """Add the pull to the gradients."""
        factors = self.penalty.factors(self.norms() if self.penalty.needs_norms else None)
        for parameter, dim, rows, each in self.parts:
            if parameter.grad is None:
                continue
            pull = parameter.detach().index_select(dim, rows)
            if isinstance(factors, Tensor):
                shape = [1] * pull.dim()
                shape[dim] = -1
                pull = pull * factors.repeat_interleave(each).view(shape).to(pull)
            parameter.grad.index_add_(dim, rows, pull.to(parameter.grad), alpha=strength)


@HOOKS.register_module()
class PenaltyHook(Hook):
    """Adds a penalty's gradient to leaving units, right before every optimizer step.

    After gradients have been averaged over ranks, unscaled and clipped, so that each rank adds the same
    and no clipping weakens the pull. An element that two leaving units share is pulled by both.

    The scalars ``penalty`` (the factor) and ``leaving_norm`` (root of the sum of the squares of what is
    to leave) are logged at the log's interval.

    Args:
        penalty: The penalty, built.
        interval: Iterations between two looks at the norm.
    """

    priority = 'NORMAL'

    def __init__(self, penalty: Penalty, interval: int = 10):
        self.penalty, self.interval = penalty, interval
        self.pulls: list[Pull] = []
        self.first = self.steps = self.step = 0
        self._handle = None

    def begin(self, runner, leaving: Iterable[Rows], first: int, steps: int) -> None:
        """Pull these units from now on, and no others.

        Args:
            runner: Its optimizer is the one to watch.
            leaving: Rows of the units of each group.
            first: Iteration at which the state began.
            steps: Iterations of the state.
        """
        self.end()
        parameters = dict(unwrapped(runner).named_parameters())
        self.pulls = [
            Pull(
                [(parameters[n], dim, rows) for n, dim, rows in parts if n in parameters],
                self.penalty,
            )
            for parts in leaving
        ]
        self.first, self.steps = first, steps
        self.step = runner.iter - first
        if not self.pulls:
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
        self._handle = optimizer.register_step_pre_hook(self.pull)

    def largest_rate(self, optimizer: torch.optim.Optimizer) -> float:
        """The largest learning rate of what is pulled, as its schedule knows it after a warm-up."""
        pulled = {id(parameter) for pull in self.pulls for parameter, *_ in pull.parts}
        rates = [
            group.get('initial_lr', group['lr'])
            for group in optimizer.param_groups
            if any(id(parameter) in pulled for parameter in group['params'])
        ]
        return max(rates, default=0.0)  # frozen parameters may be in no group

    def end(self) -> None:
        """Pull no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self.pulls = None, []

    @torch.no_grad()
    def pull(self, optimizer, args, kwargs) -> None:
        """Add the gradients."""
        strength = self.penalty.at(self.step, self.steps)
        for pull in self.pulls:
            pull.add(strength)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Know how far the state is."""
        self.step = runner.iter - self.first

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Log the factor and what is left of the units."""
        if not self.pulls or not self.every_n_train_iters(runner, self.interval):
            return
        hub = runner.message_hub
        hub.update_scalar('train/penalty', self.penalty.at(self.step, self.steps))
        norm = torch.cat([pull.norms() for pull in self.pulls]).norm()
        hub.update_scalar('train/leaving_norm', float(norm))
