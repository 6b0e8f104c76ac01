"""Training, pruning and rewinding in turns."""

from collections.abc import Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from ..calibration.loss import mmengine_loss
from ..checkpoints.checkpoint_file import model_meta, save_file
from ..common.distributed import assert_ranks_agree, on_rank_0, weights_digest
from ..common.errors import UserError
from ..common.model_wrappers import unwrapped
from ..evaluation.profiling import profile
from ..evaluation.test_set import as_metrics, headline
from ..methods.pruners import build_pruner
from ..training.hooks.mask_hook import MaskHook
from ..training.hooks.penalty_hook import PenaltyHook
from ..training.hooks.ticket_hook import TicketHook
from .lottery_tickets import Ticket, ticket_for
from .prune import data_factory
from .reports.tickets import write_tickets
from .save_results import cpu_weights


@LOOPS.register_module()
class IterativePruneLoop(EpochBasedTrainLoop):
    """Lottery-ticket training: in each pruning state train, evaluate, prune and rewind.

    State 0 trains the dense model; before state k the k-th target of ``prune_cfg.schedule`` is met by
    the weights as they were trained, what stays is rewound (``schedule.rewind``), and optimizer and
    learning-rate schedules begin anew. With a ``prune_cfg.penalty`` the units that leave are not
    removed at once, but pulled towards zero during the state and removed at its end.

    While training, what is gone is masked; at the end of every state the model is also really cut,
    evaluated and saved (``state_00.pth`` ...). Everything that the loop knows is in every checkpoint:
    a killed run goes on with ``--resume`` and ends the same.

    Args:
        runner: The runner; its config has the ``prune_cfg``.
        dataloader: A dataloader or its config.
        max_epochs: Epochs of each state.
        **kwargs: See MMEngine's ``EpochBasedTrainLoop``.

    Raises:
        UserError: no ``prune_cfg``, or a plan whose states the floors don't allow; it names the state.

    Source: Frankle & Carbin, "The Lottery Ticket Hypothesis", arXiv 1803.03635; Frankle et al.,
    "Stabilizing the Lottery Ticket Hypothesis", arXiv 1903.01611 (rewinding to an epoch); Chen et al.,
    "Coarsening the Granularity", arXiv 2202.04736 (Refill).

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
        self.pruner = build_pruner(prune_cfg.to_dict())
        if self.pruner.budget.searched:
            raise UserError(
                f'prune_cfg.budget.type is {self.pruner.budget.quantity!r}, which looks for one ratio '
                'before any training; an IterativePruneLoop needs a budget with a ratio'
            )
        self.epochs = self._max_epochs
        self.ratios = [0.0, *(number.ratio for number in self.pruner.rounds)]
        self.state = 0
        self.initial: dict[str, torch.Tensor] | None = None
        self.rows: list[dict[str, Any]] = []
        self.metrics: dict[str, float] = {}
        self.found: dict[str, Any] | None = None
        self.ticket: Ticket | None = None
        penalty = getattr(self.pruner, 'penalty', None)
        self.masks, self.penalty = MaskHook(), penalty and PenaltyHook(penalty)
        for hook in (self.masks, self.penalty, TicketHook(self)):
            if hook is not None:
                runner.register_hook(hook)

    @property
    def states(self) -> int:
        """How many pruning states there are, the dense one included."""
        return len(self.ratios)

    @property
    def model(self) -> nn.Module:
        """The model, unwrapped."""
        return unwrapped(self.runner)

    def count_all(self) -> None:
        """Count the epochs of all states: for hooks, logs and the remaining time."""
        self._max_epochs = self.epochs * self.states
        self._max_iters = self._max_epochs * len(self.dataloader)

    def run(self) -> nn.Module:
        """Go through all states that are left."""
        self.runner.call_hook('before_train')
        self.begin()
        while True:
            self.enter_state()
            while self._epoch < (self.state + 1) * self.epochs:
                self.keep_initial()
                self.metrics = {}
                self.run_epoch()
                self._decide_current_val_interval()
                if (
                    self.runner.val_loop is not None
                    and self._epoch >= self.val_begin
                    and self._epoch % self.val_interval == 0
                ):
                    self.runner.val_loop.run()
            self.keep_initial()
            self.leave_state()
            if self.state + 1 == self.states:
                break
            self.next_state()
        self.runner.call_hook('after_train')
        return self.runner.model

    def begin(self) -> None:
        """Find what can be removed, check the plan, and go on with what a checkpoint has left."""
        self.ticket = ticket_for(self.pruner, self.model)
        self.check_plan()
        if self._epoch and self.found is None:
            raise UserError(
                'the checkpoint to resume from is not of an IterativePruneLoop; give it with --load-from, '
                'to begin with its weights'
            )
        if self.found is not None:
            self.restore(self.found)
            print_log(f'going on in pruning state {self.state}', 'current')

    def check_plan(self) -> None:
        """Raise :class:`UserError` for a state in which nothing more could go."""
        before = sum(left for left, _ in self.ticket.kept().values())
        for number, ratio in enumerate(self.ratios[1:], 1):
            where = f'pruning state {number} (ratio {ratio:.4g})'
            try:
                left = self.ticket.planned(self.model, ratio)
            except UserError as error:
                raise UserError(f'{where}: {error}') from error
            if left is not None and left >= before:
                raise UserError(
                    f'{where} would remove nothing more than the one before; take fewer rounds, a '
                    'higher ratio or lower floors'
                )
            before = before if left is None else left

    def enter_state(self) -> None:
        """Put masks, and the pull on what leaves, in force."""
        shares = ', '.join(
            f'{kind} {left} of {size}' for kind, (left, size) in self.ticket.kept().items()
        )
        print_log(f'pruning state {self.state} of {self.states - 1}: {shares} in force', 'current')
        self.bind_masks()
        if self.penalty is not None:
            steps = self.epochs * len(self.dataloader)
            self.penalty.begin(self.runner, self.ticket.pulled(), self.state * steps, steps)

    def bind_masks(self) -> None:
        """Have the mask hook keep what has gone at zero."""
        self.masks.after_train(self.runner)
        self.masks.masks = self.ticket.masks(self.model)
        self.masks.before_train(self.runner)

    def keep_initial(self) -> None:
        """Keep the weights to rewind to, when the time has come."""
        rewind = self.pruner.schedule.rewind
        at = 0 if rewind == 'initial' else rewind
        if at is not None and self.initial is None and self._epoch == at:
            self.initial = {k: v.clone() for k, v in cpu_weights(self.model).items()}

    def leave_state(self) -> None:
        """Remove what was to leave, cut and evaluate the model, save it, and write the tables."""
        if not self.metrics and self.runner.val_loop is not None:
            self.runner.val_loop.run()
        before = dict(self.metrics)
        if self.penalty is not None:
            self.penalty.end()
        self.ticket.remove()
        self.bind_masks()
        slim = self.ticket.cut(deepcopy(self.model))
        with self.instead(slim):
            if self.runner.val_loop is not None:
                self.runner.val_loop.run()
        after = dict(self.metrics)
        figures = on_rank_0(lambda: profile([slim], self.pruner.profile, latency=False))[0]
        row = dict(
            state=self.state,
            ratio=self.ratios[self.state],
            kept={kind: list(pair) for kind, pair in self.ticket.kept().items()},
            groups=self.ticket.by_group(),
            params=figures['params'],
            flops=figures['flops'],
            before_removal=before,
            after_removal=after,
        )
        self.rows = [*(r for r in self.rows if r['state'] < self.state), row]
        names = list(headline(as_metrics(self.runner.cfg.get('val_evaluator')), after))
        self.save(slim, names)
        print_log(f'pruning state {self.state} done: {format_state(row, names)}', 'current')

    @contextmanager
    def instead(self, model: nn.Module):
        """Have the runner evaluate another model for a while."""
        own, self.runner.model = self.runner.model, model
        try:
            yield
        finally:
            self.runner.model = own

    def save(self, slim: nn.Module, names: Sequence[str]) -> None:
        """Write the cut model and the tables, with pictures of these metrics (on rank 0)."""
        if not dist.is_main_process():
            return
        folder = Path(self.runner.work_dir)
        own = self.ticket.describe()
        meta = {**model_meta(slim), **own.pop('meta', {})}
        meta['prune_cfg'] = self.runner.cfg.prune_cfg.to_dict()
        data = {'meta': meta, 'state_dict': cpu_weights(slim), **own}
        save_file(data, folder / f'state_{self.state:02d}.pth')
        write_tickets(self.rows, names, folder)

    def next_state(self) -> None:
        """Prune by the trained weights, rewind, and begin anew with optimizer and schedules."""
        runner = self.runner
        self.state += 1
        data = data_factory(runner.cfg, self.pruner)
        training = self.model.training
        self.ticket.choose(self.model, self.ratios[self.state], data, mmengine_loss)
        self.model.train(training)
        if self.initial is not None:
            self.model.load_state_dict(self.initial)
        assert_ranks_agree(weights_digest(self.model), 'the rewound weights')
        runner.optim_wrapper = runner.build_optim_wrapper(deepcopy(runner.cfg.optim_wrapper))
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        runner.optim_wrapper.initialize_count_status(runner.model, self._iter, self._max_iters)
        if runner.cfg.get('param_scheduler') is not None:
            self._max_epochs, total = self.epochs, self._max_epochs
            self._max_iters, iters = self.epochs * len(self.dataloader), self._max_iters
            runner.param_schedulers = runner.build_param_scheduler(
                deepcopy(runner.cfg.param_scheduler)
            )
            self._max_epochs, self._max_iters = total, iters
        self.metrics = {}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return dict(
            state=self.state,
            ratios=list(self.ratios),
            initial=self.initial,
            rows=self.rows,
            units=self.ticket.to_dict(),
        )

    def restore(self, data: dict[str, Any]) -> None:
        """Go on from what :meth:`to_dict` gave.

        Raises:
            UserError: it is of another plan.
        """
        if data.get('ratios') != self.ratios:
            raise UserError(
                'the checkpoint to resume from was trained with other targets per state than '
                'prune_cfg.schedule says now; take the config that it was trained with'
            )
        self.state, self.rows = data['state'], list(data['rows'])
        self.initial = data['initial']
        self.ticket.restore(data['units'])


def format_state(row: dict[str, Any], names: Sequence[str]) -> str:
    """A state in a few words, with these metrics."""
    parts = [f'{row["params"]:,} parameters']
    for name in names:
        before, after = row['before_removal'][name], row['after_removal'][name]
        parts.append(f'{name} {before:.4g} -> {after:.4g} after removal')
    return ', '.join(parts)
