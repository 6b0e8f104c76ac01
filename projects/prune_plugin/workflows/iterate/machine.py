"""Prune, rewind, train, evaluate: one loop over rounds, whoever trains."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...calibration.loss import mmengine_loss
from ...common.distributed import assert_ranks_agree, weights_digest
from ...common.errors import UserError
from ...common.progress import step
from ...methods.pruners import DataFactory, Selection
from ...methods.pruners.layer_progress import LayerProgress
from ...methods.schedules import Round
from ..round_record import Record, Row


class Trainer(Protocol):
    """What trains the rounds: a loop inside MMEngine's Runner, or a Runner for each round."""

    def trained_model(self) -> nn.Module:
        """The model as the round before has left it, to be pruned in place."""

    def rewind_point(self) -> Mapping[str, Tensor] | None:
        """The weights that those kept go back to; None: they stay as they are."""

    def progress(self, round_: Round) -> LayerProgress | None:
        """Where finished layers of a round's pruning are kept."""

    def begin(self, round_: Round, row: Row, model: nn.Module | None) -> None:
        """Start the training of a round: from a model just pruned, or from the dense one (None)."""

    def train(self, round_: Round, row: Row) -> None:
        """Train a round, or the rest of it."""

    def finish(self, round_: Round, row: Row) -> None:
        """Evaluate and save what a round has made, and fill in its row."""

    def save(self, record: Record) -> None:
        """Write the record."""


@torch.no_grad()
def rewind(model: nn.Module, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Give a model earlier weights, as far as masks keep them; the others become zero.

    Args:
        model: Changed in place.
        weights: Its earlier state dict.
        masks: Bool by parameter name.
    """
    model.load_state_dict(weights)
    for name, keep in masks.items():
        parameter = model.get_parameter(name)
        parameter.masked_fill_(~keep.to(parameter.device), 0)


class IterativePruning:
    """Rounds of pruning and training; all ranks go through them together.

    Args:
        rounds: What is to be done; round 0 prunes nothing.
        selection: What is kept, as far as the record goes.
        data: Gives calibration batches.
        trainer: Trains.
        record: What was done before.

    Source: Han et al., "Learning both Weights and Connections", arXiv 1506.02626; Frankle & Carbin, "The
    Lottery Ticket Hypothesis", arXiv 1803.03635; Frankle et al., "Stabilizing the Lottery Ticket
    Hypothesis", arXiv 1903.01611 (rewinding to an epoch).
    """

    def __init__(
        self,
        rounds: Sequence[Round],
        selection: Selection,
        data: DataFactory,
        trainer: Trainer,
        record: Record,
    ):
        self.rounds, self.selection, self.data = rounds, selection, data
        self.trainer, self.record = trainer, record

    def run(self) -> None:
        """Go through all rounds that are left."""
        for index, round_ in enumerate(self.rounds):
            rows = self.record.rows
            if len(rows) > index and rows[index].complete:
                continue
            if len(rows) == index:
                self.begin(round_)
            self.trainer.train(round_, rows[index])
            self.trainer.finish(round_, rows[index])
            rows[index].complete = True
            self.trainer.save(self.record)
            print_log(f'pruning state {round_.number} done: {self.summary(rows[index])}', 'current')

    def begin(self, round_: Round) -> None:
        """Prune what the round before left, unless it is the dense model's, and start a row."""
        model = None
        if round_.number:
            print_log(
                f'pruning state {round_.number} of {self.rounds[-1].number}: ratio {round_.ratio:.4g}',
                'current',
            )
            model = self.trainer.trained_model()
            self.prune(model, round_)
        row = Row(round_.number, round_.ratio, self.selection.sparsity)
        self.trainer.begin(round_, row, model)
        self.record.rows.append(row)
        self.trainer.save(self.record)

    def prune(self, model: nn.Module, round_: Round) -> None:
        """Choose what is kept in a round, and rewind it."""
        modes = [(module, module.training) for module in model.modules()]
        progress = self.trainer.progress(round_)
        with step('prune'):
            self.selection.choose(
                model,
                round_.ratio,
                lambda _: self.data(round_.calibration),
                mmengine_loss,
                progress,
            )
        for module, training in modes:
            module.training = training
        weights = self.trainer.rewind_point()
        if weights is not None:
            rewind(model, weights, self.selection.masks(model))
        assert_ranks_agree(weights_digest(model), 'the weights that a round starts from')

    def summary(self, row: Row) -> str:
        """A round in a few words."""
        parts = [f'sparsity {100 * row.sparsity:.2f} %']
        if row.params is not None:
            parts.append(f'{row.params:,} parameters')
        for name in self.record.headline:
            stages: list[Any] = [row.after_prune, row.before_removal, row.after_training]
            values = [metrics[name] for metrics in stages if metrics and name in metrics]
            parts.append(f'{name} ' + ' -> '.join(f'{value:.4g}' for value in values))
        return ', '.join(parts)


def check_plan(selection: Selection, model: nn.Module, rounds: Sequence[Round]) -> None:
    """Raise :class:`UserError` for a round in which nothing more could be removed.

    Args:
        selection: With everything active.
        model: The dense model.
        rounds: Those that prune.
    """
    before = sum(left for left, _ in selection.by_kind.values())
    for round_ in rounds:
        where = f'pruning state {round_.number} (ratio {round_.ratio:.4g})'
        try:
            left = selection.planned(model, round_.ratio)
        except UserError as error:
            raise UserError(f'{where}: {error}') from error
        if left is not None and left >= before:
            raise UserError(
                f'{where} would remove nothing more than the one before; take fewer rounds, a '
                'higher ratio or lower floors'
            )
        before = before if left is None else left
