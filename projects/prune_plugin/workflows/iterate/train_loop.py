"""Iterative pruning inside a Runner: one training loop goes through all rounds."""

from collections.abc import Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from ...checkpoints.checkpoint_file import model_meta, save_file
from ...checkpoints.seal import seal
from ...common.distributed import on_rank_0
from ...common.errors import UserError
from ...common.model_interface import prune_state_on
from ...common.model_wrappers import unwrapped
from ...evaluation.profiling import profile
from ...evaluation.test_set import as_metrics, headline
from ...methods.pruners import Pruner, build_pruner
from ...methods.pruners.execution import check_in_memory
from ...methods.schedules import Round
from ...training.hooks.mask_hook import MaskHook
from ...training.hooks.penalty_hook import PenaltyHook
from ...training.hooks.pruning_scalars_hook import log_round
from ..prune import data_factory
from ..reports.rounds import write_states
from ..round_record import Record, Row
from ..save_results import cpu_weights
from .machine import IterativePruning, check_plan

#: Key of a training checkpoint, and what it was in earlier versions.
KEY, EARLIER_KEY = 'iterative_pruning', 'ticket'


@LOOPS.register_module()
class IterativePruneLoop(EpochBasedTrainLoop):
    """Trains, prunes and rewinds in turns: lottery tickets.

    State 0 trains the dense model; before state k the k-th target of ``prune_cfg.schedule`` is met by
    the weights as they were trained, what is kept is rewound (``schedule.rewind``), and optimizer and
    learning-rate schedules are rebuilt. With a ``prune_cfg.penalty`` the units scheduled for removal are
    not removed at once, but regularized towards zero during the state and removed at its end.

    While training, what was removed is masked; at the end of every state the model is also really cut,
    evaluated and saved (``state_00.pth`` ...). Everything that the loop needs to go on is in every
    checkpoint: a killed run goes on with ``--resume`` and ends the same.

    Args:
        runner: The runner; its config has the ``prune_cfg``.
        dataloader: A dataloader or its config.
        max_epochs: Epochs of each state.
        **kwargs: See MMEngine's ``EpochBasedTrainLoop``.

    Raises:
        UserError: no ``prune_cfg``, or a plan whose states the floors don't allow; it names the state.

    Source: see :class:`IterativePruning`; Chen et al., "Coarsening the Granularity", arXiv 2202.04736
    (Refill).

    Example:
        >>> train_cfg = dict(type='IterativePruneLoop', max_epochs=60, val_interval=1)
    """

    def __init__(self, runner, dataloader, max_epochs: int, **kwargs):
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        prune_cfg = runner.cfg.get('prune_cfg')
        if not prune_cfg:
            raise UserError(
                'train_cfg.type is IterativePruneLoop, but there is no prune_cfg; add one'
            )
        self.pruner = pruner = build_pruner(prune_cfg.to_dict())
        check_in_memory(pruner.execution, 'an IterativePruneLoop')
        if pruner.searched:
            raise UserError(
                f'prune_cfg.budget.type is {pruner.budget.quantity!r}, which looks for one ratio '
                'before any training; an IterativePruneLoop needs a budget with a ratio'
            )
        self.epochs: int = self._max_epochs  # as the base class has checked it
        self.rounds = [Round(0, 0.0, pruner.calibration, pruner.recovery, 1.0), *pruner.rounds]
        self.record = Record(targets_of(pruner), len(self.rounds))
        self.initial: dict[str, torch.Tensor] | None = None
        self.metrics: dict[str, float] = {}
        self.restored: dict[str, Any] | None = None
        self.masks = MaskHook()
        self.penalty = None if pruner.penalty is None else PenaltyHook(pruner.penalty)
        for hook in (self.masks, self.penalty, IterativePruneHook(self)):
            if hook is not None:
                runner.register_hook(hook)

    @property
    def model(self) -> nn.Module:
        """The model, unwrapped."""
        return unwrapped(self.runner)

    def count_epochs(self, states: int) -> None:
        """Have hooks, logs and learning-rate schedules count the epochs of so many states."""
        self._max_epochs = self.epochs * states
        self._max_iters = self._max_epochs * len(self.dataloader)

    def run(self) -> nn.Module:
        """Go through all states that are left."""
        self.runner.call_hook('before_train')
        self.selection = self.pruner.select(self.model)
        check_plan(self.selection, self.model, self.pruner.rounds)
        if self._epoch and self.restored is None:
            raise UserError(
                'the checkpoint to resume from is not of an IterativePruneLoop; give it with --load-from, '
                'to begin with its weights'
            )
        if self.restored is not None:
            self.restore(self.restored)
        data = data_factory(self.runner.cfg, self.pruner)
        IterativePruning(self.rounds, self.selection, data, self, self.record).run()
        self.runner.call_hook('after_train')
        return self.runner.model

    def trained_model(self) -> nn.Module:
        """See :class:`Trainer`."""
        return self.model

    def rewind_point(self):
        """See :class:`Trainer`."""
        return self.initial

    def progress(self, round_: Round) -> None:
        """See :class:`Trainer`: an interrupted pruning is repeated."""

    def begin(self, round_: Round, row: Row, model: nn.Module | None) -> None:
        """See :class:`Trainer`: rebuild optimizer and schedules."""
        self.metrics = {}
        if model is None:
            return
        runner = self.runner
        runner.optim_wrapper = runner.build_optim_wrapper(deepcopy(runner.cfg.optim_wrapper))
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        runner.optim_wrapper.initialize_count_status(runner.model, self._iter, self._max_iters)
        if runner.cfg.get('param_scheduler') is not None:
            self.count_epochs(1)
            schedulers = deepcopy(runner.cfg.param_scheduler)
            runner.param_schedulers = runner.build_param_scheduler(schedulers)
            self.count_epochs(len(self.rounds))

    def train(self, round_: Round, row: Row) -> None:
        """See :class:`Trainer`: with masks, and what is scheduled for removal regularized."""
        state, steps = round_.number, self.epochs * len(self.dataloader)
        active = ', '.join(f'{k} {n} of {size}' for k, (n, size) in self.selection.by_kind.items())
        print_log(f'pruning state {state} of {len(self.rounds) - 1}: {active} active', 'current')
        self.bind_masks()
        if self.penalty is not None:
            self.penalty.begin(self.runner, self.selection.scheduled(), state * steps, steps)
        while self._epoch < (state + 1) * self.epochs:
            self.keep_initial()
            self.metrics = {}
            self.run_epoch()
            self._decide_current_val_interval()
            due = self._epoch >= self.val_begin and self._epoch % self.val_interval == 0
            if self.runner.val_loop is not None and due:
                self.runner.val_loop.run()
        self.keep_initial()

    def bind_masks(self) -> None:
        """Have the mask hook keep what was removed at zero."""
        self.masks.after_train(self.runner)
        self.masks.masks = self.selection.masks(self.model)
        self.masks.before_train(self.runner)

    def keep_initial(self) -> None:
        """Keep the weights to rewind to, when the time has come."""
        rewind = self.pruner.schedule.rewind
        epoch = 0 if rewind == 'initial' else rewind
        if epoch is not None and self.initial is None and self._epoch == epoch:
            self.initial = {k: v.clone() for k, v in cpu_weights(self.model).items()}

    def finish(self, round_: Round, row: Row) -> None:
        """See :class:`Trainer`: remove what was scheduled, cut the model, evaluate it, save it."""
        if not self.metrics and self.runner.val_loop is not None:
            self.runner.val_loop.run()
        row.before_removal = dict(self.metrics)
        if self.penalty is not None:
            self.penalty.end()
        self.selection.remove()
        self.bind_masks()
        pruned = self.selection.pruned(deepcopy(self.model))
        with self.evaluating(pruned.model):
            if self.runner.val_loop is not None:
                self.runner.val_loop.run()
        row.after_training, row.groups = dict(self.metrics), self.selection.counts()
        row.sparsity = self.selection.sparsity
        settings = self.pruner.profile
        figures = on_rank_0(lambda: profile([pruned.model], settings, latency=False))[0]
        row.params, row.flops = figures['params'], figures['flops']
        metrics = as_metrics(self.runner.cfg.get('val_evaluator'))
        self.record.headline = headline(metrics, row.after_training)
        if dist.is_main_process():
            described = pruned.describe(prune_state_on(self.model))
            meta = {**model_meta(pruned.model), **described.pop('meta', {})}
            meta['prune_cfg'] = self.pruner.to_dict()
            data = {'meta': meta, 'state_dict': cpu_weights(pruned.model), **described}
            seal(data)
            save_file(data, Path(self.runner.work_dir) / f'state_{row.round:02d}.pth')

    @contextmanager
    def evaluating(self, model: nn.Module):
        """Have the runner evaluate another model for a while."""
        original, self.runner.model = self.runner.model, model
        try:
            yield
        finally:
            self.runner.model = original

    def save(self, record: Record) -> None:
        """See :class:`Trainer`: the record itself is in the checkpoints."""
        row = record.rows[-1]
        if dist.is_main_process() and row.complete:
            write_states(record, Path(self.runner.work_dir))
            log_round(self.runner.visualizer, {**asdict(row), 'kept': row.kept}, self.runner.iter)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        selection = self.selection.to_dict()
        return dict(record=asdict(self.record), selection=selection, initial=self.initial)

    def restore(self, data: dict[str, Any]) -> None:
        """Go on from what :meth:`to_dict` gave.

        Raises:
            UserError: it is of another plan.
        """
        record = Record.from_dict(data['record'])
        check_same_targets(record, self.record.key)
        self.record, self.initial = record, data['initial']
        self.selection.restore(data['selection'])
        print_log(f'going on in pruning state {record.rows[-1].round}', 'current')


@HOOKS.register_module()
class IterativePruneHook(Hook):
    """Carries an iterative pruning through checkpoints; :class:`IterativePruneLoop` registers it itself.

    Args:
        loop: The loop.
    """

    priority = 'LOW'

    def __init__(self, loop: IterativePruneLoop):
        self.loop = loop

    def before_run(self, runner) -> None:
        """From now on the loop's epochs are those of all states."""
        self.loop.count_epochs(len(self.loop.rounds))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what the loop needs to go on."""
        checkpoint[KEY] = self.loop.to_dict()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the state of an earlier run when resuming; a checkpoint that is only loaded has none."""
        if runner._resume:
            self.loop.restored = saved_state(checkpoint)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Pass the metrics to the loop."""
        self.loop.metrics = dict(metrics or {})


def targets_of(pruner: Pruner) -> dict[str, Any]:
    """What two runs must have in common for one to resume the other: the states' ratios, dense first."""
    return {'ratios': [0.0, *(round_.ratio for round_ in pruner.rounds)]}


def saved_state(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """What :meth:`IterativePruneLoop.to_dict` left in a checkpoint; None if nothing."""
    earlier = checkpoint.get(EARLIER_KEY)
    return checkpoint.get(KEY) or (earlier and from_ticket(earlier))


def check_same_targets(record: Record, key: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` unless a record is of a run with the targets ``key``."""
    if record.key != key:
        raise UserError(
            'the checkpoint to resume from was trained with other targets per state than '
            'prune_cfg.schedule says now; take the config that it was trained with'
        )


def from_ticket(ticket: dict[str, Any]) -> dict[str, Any]:
    """:meth:`IterativePruneLoop.to_dict` of what version 0.1.0 kept in checkpoints under ``ticket``."""
    rows = []
    for state in ticket['rows']:
        row = Row(state['state'], state['ratio'], 0.0, complete=True, groups=state['groups'])
        left, size = map(sum, zip(*row.kept.values(), strict=True))
        row.sparsity = 1 - left / size
        row.params, row.flops = state['params'], state['flops']
        row.before_removal, row.after_training = state['before_removal'], state['after_removal']
        rows.append(row)
    number, units = ticket['state'], ticket['units']
    rows = [*rows[:number], Row(number, ticket['ratios'][number], 0.0)]
    selection = {'kept': units['alive'], 'target': units.get('chosen')}
    record = Record({'ratios': ticket['ratios']}, len(ticket['ratios']), rows=rows)
    return dict(record=asdict(record), selection=selection, initial=ticket['initial'])
