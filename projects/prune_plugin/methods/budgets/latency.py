"""A budget of measured time."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.eval_mode import evaluation_mode
from ...common.model_interface import profile_batch_size_of
from ...common.progress import track
from ...common.registry import BUDGETS
from ...common.unchanged import unchanged
from ...common.validation import MAX_SECONDS, at_least, check_number
from ...evaluation.environment import device_name
from ...evaluation.example_inputs import Example, example_of
from ...evaluation.latency import interleaved_latency, model_latency
from ...structure.prune_state import PruneState
from ...structure.slimming import slim
from ...structure.unit_group import Attr, UnitGroup
from .base import Budget
from .costs import TableCost

#: Forward passes of dense and slim model that the correction takes, at least.
CORRECTION_PASSES = 7
#: Fraction of the time below which noise is larger than the error.
LEAST_TO_CORRECT = 0.1
#: By how much measured savings may differ from predicted ones: beyond, it is noise.
CORRECTIONS = (0.5, 2.0)


@BUDGETS.register_module(name='latency')
class LatencyBudget(Budget):
    """Remove a fraction of the forward time, measured on the model's device.

    Each module that owns units is timed at a few numbers of units (multiples of ``prune_cfg.round_to``),
    on the inputs of its first call; times in between are interpolated. Modules of equal shapes are timed
    once. As a module alone may run faster or slower than among others, what this predicts is corrected by
    the time of a slim copy, pruned accordingly. The tools use a GPU if there is one.
    ``prune_cfg.profile`` sets the batch size and the number of CPU threads. On several ranks only rank 0
    measures.

    Args:
        ratio: Fraction of the time to remove.
        points: Numbers of units measured per module.
        seconds: Time to spend on each module, in seconds.

    Example:
        >>> prune_cfg = dict(budget=dict(type='latency', ratio=0.3), profile=dict(batch_size=8))
    """

    quantity = 'latency'
    unit = 'ms'
    measured = tried = True

    def __init__(self, ratio: float = 0.3, points: int = 5, seconds: float = 0.5):
        super().__init__(ratio)
        at_least('prune_cfg.budget.points', points, 2)
        check_number('prune_cfg.budget.seconds', seconds, 0, MAX_SECONDS)
        self.points, self.seconds = points, seconds

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        batch = profile.get('batch_size', 1)
        example = example_of(model, profile, batch, 'a latency budget')
        threads, round_to = profile.get('num_threads', 1), profile.get('round_to', 1)
        calls = module_calls(model, {group.owner for group in groups}, example)
        cache: dict[tuple, tuple[Tensor, Tensor]] = {}
        tables = []
        for group in track(groups, 'timing', len(groups)):
            if group.owner not in calls:
                raise UserError(
                    f'prune_cfg.budget: {group.name} did not run on the example input, so it cannot '
                    'be timed; exclude it'
                )
            key = signature(model, group, calls[group.owner])
            if key not in cache:
                cache[key] = self._table(model, group, calls[group.owner], threads, round_to)
            tables.append(cache[key])
        (base,) = model_latency([model], example, num_threads=threads)
        print_log(
            f'latency: {base:.4g} ms, batch {batch or profile_batch_size_of(model)}, {threads} thread(s), '
            f'{device_name(model)}',
            'current',
        )
        return TableCost(base, tables)

    def corrected(self, model, groups, trial, cost, profile):
        """See :meth:`Budget.corrected`: by the time of a slim copy."""
        counts, state = trial(cost)
        predicted = 1 - cost.total(counts) / cost.base
        if predicted < LEAST_TO_CORRECT or not state.reduced:
            return cost
        batch = profile.get('batch_size', 1)
        example = example_of(model, profile, batch, 'a latency budget')
        copy = slim(deepcopy(model), state)
        seconds = max(self.seconds, 2 * CORRECTION_PASSES * cost.base / 1e3)
        threads = profile.get('num_threads', 1)
        dense, slimmed = model_latency([model, copy], example, seconds=seconds, num_threads=threads)
        measured = 1 - slimmed / dense
        low, high = CORRECTIONS
        factor = min(max(measured / predicted, low), high)
        print_log(
            f'latency: planned for {predicted:.1%} less, measured {measured:.1%}: tables corrected',
            'current',
        )
        return TableCost(cost.base, cost.tables, cost.factor * factor)

    def _table(
        self, model: nn.Module, group: UnitGroup, call: Example, threads: int, round_to: int
    ) -> tuple[Tensor, Tensor]:
        """Time of the group's owner by its number of units: counts and milliseconds, both ascending."""
        args, kwargs = call
        counts = measured_counts(group, self.points, round_to)
        owner = model.get_submodule(group.owner)
        local = relative_to(group, group.owner)
        modules = []
        for count in counts.tolist():
            state = PruneState({local.name: local}, {local.name: torch.arange(count)})
            holder = nn.ModuleDict({'m': deepcopy(owner)})
            slim(holder, state).eval()
            modules.append(holder['m'])
        with torch.inference_mode():
            device = next(owner.parameters()).device
            calls = [partial(module, *args, **kwargs) for module in modules]
            times = interleaved_latency(calls, self.seconds, threads, device)
        if len(counts) == 1:  # all units must stay, so nothing is saved
            counts, times = torch.tensor([0, group.size]), times * 2
        # More units don't take less time; measurements that say so are noise.
        return counts.double(), torch.tensor(times, dtype=torch.float64).cummax(0).values


def measured_counts(group: UnitGroup, points: int, round_to: int) -> Tensor:
    """Numbers of units at which to measure a group, ascending: at most ``points``, up to all.

    They are multiples of ``round_to``, as what will be left is: on GPUs other widths may take longer.
    """
    least = max(1, group.least)
    steps = torch.linspace(least, group.size, min(points, group.size))
    steps = (steps / round_to).round() * round_to
    steps[-1] = group.size  # which may be no multiple
    counts = steps[(steps >= least) & (steps <= group.size)].unique().long()
    if len(counts) > 1 or group.least == group.size:
        return counts
    return torch.tensor([group.least, group.size])


def relative_to(group: UnitGroup, owner: str) -> UnitGroup:
    """The group as it is in a model whose only module is its owner, named ``m``."""

    def local(name: str) -> str:
        return f'm.{name.removeprefix(owner).removeprefix(".")}'.rstrip('.')

    cuts = tuple(replace(cut, name=local(cut.name)) for cut in group.cuts)
    attrs = tuple(Attr(local(a.module), a.name, a.per_unit) for a in group.attrs)
    converts, emptied = (
        tuple((local(module), converter) for module, converter in pairs)
        for pairs in (group.converts, group.emptied)
    )
    group = replace(group, name=local(group.name), owner='m')
    return replace(group, cuts=cuts, attrs=attrs, converts=converts, emptied=emptied)


@torch.no_grad()
def module_calls(model: nn.Module, names: set[str], example: Example) -> dict[str, Example]:
    """The arguments of each named module's first call in a forward pass on ``example``."""
    calls: dict[str, Example] = {}
    handles = []
    for name in names:

        def record(
            module: nn.Module, args: tuple, kwargs: dict[str, Any], name: str = name
        ) -> None:
            calls.setdefault(name, (args, kwargs))

        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(record, with_kwargs=True))
    try:
        with evaluation_mode(model, fused=True), unchanged(model):
            model(*example[0], **example[1])
    finally:
        for handle in handles:
            handle.remove()
    return calls


def signature(model: nn.Module, group: UnitGroup, call: Example) -> tuple:
    """A key that is equal for groups whose owners take the same time: class, shapes and cuts."""
    owner = model.get_submodule(group.owner)
    inputs: Sequence[Any] = (*call[0], *call[1].values())
    return (
        type(owner).__name__,
        group.kind,
        tuple((cut.name.removeprefix(group.owner), cut.dim, cut.width) for cut in group.cuts),
        tuple((name, tuple(p.shape)) for name, p in owner.named_parameters()),
        tuple(tuple(x.shape) for x in inputs if isinstance(x, Tensor)),
    )
