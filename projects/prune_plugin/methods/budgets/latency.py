"""A budget of measured time."""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...checkpoints.engines.timing import TIMING_ENGINES
from ...common.errors import UserError
from ...common.model_interface import profile_batch_size_of
from ...common.progress import track
from ...common.registry import BUDGETS
from ...common.validation import MAX_SECONDS, at_least, check_number, one_of
from ...evaluation.example_inputs import Example, example_of
from ...structure.slimming import slim
from ...structure.unit_group import UnitGroup
from ..rounding import RoundTo, round_to_of
from .base import Budget, BudgetResult
from .correction import to_plan_for
from .costs import TableCost
from .latency_table import LatencyTable
from .layer_shapes import (
    layer_shape,
    measured_counts,
    model_shape,
    owner_calls,
    signature,
    slim_owner,
)

#: Forward passes of dense and slim model that the correction takes, at least.
CORRECTION_PASSES = 7
#: Fraction of the time below which noise is larger than the error.
LEAST_TO_CORRECT = 0.1
#: How often a slim copy is timed at most, and how close to the prediction is close enough.
TRIALS, CLOSE = 5, 0.02
#: How many times its seconds a layer may take to be timed three times: large ones would be noise else.
PATIENCE = 20
#: Time to spend on the dense and the pruned model, in seconds, at least.
FINAL_SECONDS = 4.0

#: From a group and the call of its owner to the owner's times: counts and milliseconds, both ascending.
Times = Callable[[UnitGroup, Example], tuple[Tensor, Tensor]]


@BUDGETS.register_module(name='latency')
class LatencyBudget(Budget):
    """Remove a fraction of the forward time, measured in an engine or on another machine.

    Each module that owns units is timed at a few numbers of units (multiples of ``prune_cfg.round_to``),
    on the inputs of its first call; times in between are interpolated. Modules of equal shapes are timed
    once. As a module alone may run faster or slower than among others, what this predicts is corrected by
    the time of slim copies, pruned accordingly. ``prune_cfg.profile`` sets the batch size and the number
    of CPU threads. On several ranks only rank 0 measures.

    PyTorch is timed on the model's device: the tools use a GPU if there is one. The other engines run on
    the CPU, what is timed there is exported to ONNX first, and the pruned model as a whole is timed in
    them too, for the report. With a ``table`` nothing is timed here, and nothing corrected.

    Args:
        ratio: Fraction of the time to remove.
        points: Numbers of units measured per module.
        seconds: Time to spend on each module, in seconds.
        engine: What runs the modules: ``'torch'``, ``'onnxruntime'`` or ``'openvino'``.
        table: CSV file with the times of another machine, by what ``tools/latency_table.py`` writes;
            None: they are measured here.

    Raises:
        UserError: an engine is unknown or isn't installed, or the table is broken.

    Example:
        >>> prune_cfg = dict(budget=dict(type='latency', ratio=0.3), profile=dict(batch_size=8))
        >>> prune_cfg = dict(budget=dict(type='latency', ratio=0.4, engine='onnxruntime'))
    """

    quantity = 'latency'
    unit = 'ms'
    measured = True

    def __init__(
        self,
        ratio: float = 0.3,
        points: int = 5,
        seconds: float = 0.5,
        engine: str = 'torch',
        table: str | os.PathLike | None = None,
    ):
        super().__init__(ratio)
        at_least('prune_cfg.budget.points', points, 2)
        check_number('prune_cfg.budget.seconds', seconds, 0, MAX_SECONDS)
        self.points, self.seconds = points, seconds
        key = 'prune_cfg.budget.engine'
        self.engine = TIMING_ENGINES[one_of(key, engine, TIMING_ENGINES)]
        self.engine.check(key)
        self.table = None if table is None else LatencyTable(table)
        if self.table is not None and engine != 'torch':
            raise UserError(
                f'prune_cfg.budget.table is {str(table)!r}, whose times are measured elsewhere, and engine '
                f'{engine!r}; leave one out'
            )
        if self.table is not None:
            self.quantity = f'latency by {Path(self.table.path).name}'
        elif engine != 'torch':
            self.quantity = f'latency in {engine}'
        self.tried = self.table is None  # a slim copy can be timed here alone

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        batch, threads = profile.get('batch_size', 1), profile.get('num_threads', 1)
        example = example_of(model, profile, batch, 'a latency budget')
        calls = owner_calls(model, groups, example)
        if self.table is not None:
            base, times = self.table.of_model(model_shape(model, example)), self._looked_up(model)
            where = str(self.table.path)
        else:
            times = self._measured(model, threads, profile.get('round_to', 1))
            where = self.engine.where(model)
        cache: dict[tuple, tuple[Tensor, Tensor]] = {}
        tables = []
        for group in track(groups, 'timing', len(groups)):
            key = signature(model, group, calls[group.owner])
            if key not in cache:
                # More units don't take less time; measurements that say so are noise.
                counts, found = times(group, calls[group.owner])
                cache[key] = counts, found.cummax(0).values
            tables.append(cache[key])
        if self.table is None:
            (base,) = self.engine.latency([model], example, seconds=2.0, num_threads=threads)
        print_log(
            f'latency: {base:.4g} ms, batch {batch or profile_batch_size_of(model)}, {threads} thread(s), '
            f'{where}',
            'current',
        )
        return TableCost(base, tables)

    def corrected(self, model, groups, trial, cost, profile):
        """See :meth:`Budget.corrected`: by the time of slim copies, until it is as predicted."""
        seconds = max(self.seconds, 2 * CORRECTION_PASSES * cost.base / 1e3)
        tried: list[tuple[float, float]] = []  # saved by the tables alone, and as measured
        misses: list[tuple[float, TableCost]] = []
        for _ in range(TRIALS):
            counts, state = trial(cost)
            predicted = 1 - cost.total(counts) / cost.base
            if predicted < LEAST_TO_CORRECT or not state.reduced:
                return cost
            copy = slim(deepcopy(model), state)
            dense, slimmed = self._whole([model, copy], profile, seconds)
            measured = 1 - slimmed / dense
            tried.append((predicted / cost.factor, measured))
            misses.append((abs(measured - predicted), cost))
            close = misses[-1][0] < CLOSE
            print_log(
                f'latency: planned for {predicted:.1%} less, measured {measured:.1%}'
                + ('' if close else ': tables corrected'),
                'current',
            )
            if close:
                break
            factor = predicted / to_plan_for(predicted, tried)
            cost = TableCost(cost.base, cost.tables, factor)
        return min(misses, key=lambda miss: miss[0])[1]

    def remeasured(self, dense, pruned, profile):
        """See :meth:`Budget.remeasured`: in another engine than the one that every report has."""
        if self.table is not None or self.engine.name == 'torch':
            return None
        before, after = self._whole([dense, pruned], profile, FINAL_SECONDS)
        return BudgetResult(self.quantity, self.ratio, 1 - after / before, before, after, self.unit)

    def _whole(
        self, models: Sequence[nn.Module], profile: dict[str, Any], seconds: float
    ) -> list[float]:
        """Milliseconds of whole models, by the profile's batch size and threads."""
        batch = profile.get('batch_size', 1)
        example = example_of(models[0], profile, batch, 'a latency budget')
        threads = profile.get('num_threads', 1)
        return self.engine.latency(models, example, seconds=seconds, num_threads=threads)

    def _looked_up(self, model: nn.Module) -> Times:
        """Times from the table."""
        assert self.table is not None
        table = self.table

        def times(group: UnitGroup, call: Example) -> tuple[Tensor, Tensor]:
            shape = layer_shape(model, group, call)
            return or_nothing(group, *table.of_layer(shape, group.size, group.least, group.name))

        return times

    def _measured(self, model: nn.Module, threads: int, round_to: RoundTo) -> Times:
        """Times in the engine, of slim copies."""

        def times(group: UnitGroup, call: Example) -> tuple[Tensor, Tensor]:
            counts = measured_counts(group, self.points, round_to_of(round_to, group))
            modules = [slim_owner(model, group, count) for count in counts.tolist()]
            found = self.engine.latency(
                modules, call, seconds=self.seconds, num_threads=threads, patience=PATIENCE
            )
            return or_nothing(group, counts.double(), torch.tensor(found, dtype=torch.float64))

        return times


def or_nothing(group: UnitGroup, counts: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Counts and times; of a group that keeps all its units the same time at 0 units: nothing is saved."""
    if len(counts) > 1:
        return counts, times
    return torch.tensor([0.0, group.size], dtype=torch.float64), times.repeat(2)
