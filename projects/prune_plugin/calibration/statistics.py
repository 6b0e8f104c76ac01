"""Statistics of gradients, activations and unit usage: hooks that accumulate them, sums over ranks."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from ..common.distributed import sum_over_ranks
from ..common.model_interface import unit_usage_of
from ..structure.unit_group import UnitGroup

#: Usage of units whose module doesn't report it.
NOT_REPORTED = -math.inf


class Statistic(StrEnum):
    """Kinds of statistics that a criterion can need."""

    GRADIENTS = 'gradients'
    SQUARED_GRADIENTS = 'squared_gradients'
    FISHER = 'fisher'
    ACTIVATIONS = 'activations'
    USAGE = 'usage'


#: Statistics that depend on the loss.
GRADIENT_STATISTICS = frozenset(
    (Statistic.GRADIENTS, Statistic.SQUARED_GRADIENTS, Statistic.FISHER)
)
#: Statistics that take as much memory as the weights.
WEIGHT_STATISTICS = frozenset((Statistic.GRADIENTS, Statistic.SQUARED_GRADIENTS))


@dataclass
class Statistics:
    """Calibration statistics over all ranks, by parameter name unless noted.

    Attributes:
        gradients: Mean gradient over samples, shaped as the parameter; float64 on CPUs, else float32.
        squared_gradients: Mean over batches, weighted by their samples, of the squared gradient, likewise.
        input_rms: Root mean square of each input feature of the layer that owns the weight, float64 (in,).
        input_mean_abs: Mean absolute value of each input feature, likewise.
        rows: Number of input rows (tokens, pixels) that ``input_rms`` and ``input_mean_abs`` are over.
        usage: How much each unit was used, per sample; by group name, float64 (group.size,).
        fisher: Mean over batches, weighted by their samples, of the squared gradient of the unit masks
            (see :class:`MaskGradients`); by group name, float64 (group.size,).
        samples: Number of samples.
    """

    gradients: dict[str, Tensor] = field(default_factory=dict)
    squared_gradients: dict[str, Tensor] = field(default_factory=dict)
    input_rms: dict[str, Tensor] = field(default_factory=dict)
    input_mean_abs: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    usage: dict[str, Tensor] = field(default_factory=dict)
    fisher: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0


@contextmanager
def activation_hooks(model: nn.Module, names: set[str], statistics: Statistics) -> Iterator[None]:
    """Sum squares and absolute values of the inputs of the layers that own the weights ``names``."""
    squares, absolutes, counts = statistics.input_rms, statistics.input_mean_abs, statistics.rows
    handles = []
    for name in sorted(names):
        module = model.get_submodule(name.rpartition('.')[0])

        def add(module: nn.Module, args: tuple, name: str = name) -> None:
            x = args[0].detach()
            dim = -1 if isinstance(module, nn.Linear) else 1
            rows = x.movedim(dim, -1).flatten(0, -2).double()
            squares[name] += rows.square().sum(0)
            absolutes[name] += rows.abs().sum(0)
            counts[name] += len(rows)

        weight = module.weight
        for table in (squares, absolutes):
            table[name] = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
        counts[name] = torch.zeros((), dtype=torch.float64, device=weight.device)
        handles.append(module.register_forward_pre_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def usage_hooks(
    model: nn.Module, groups: Sequence[UnitGroup], usage: dict[str, Tensor]
) -> Iterator[None]:
    """Sum the usage that the groups' modules report by ``unit_usage`` (see the criterion ``Usage``).

    Args:
        model: The model.
        groups: The unit groups.
        usage: Added to, by group name; :data:`NOT_REPORTED` where a module doesn't report the kind.
    """
    handles = []
    for group in groups:
        owner = model.get_submodule(group.owner)
        usage_of = unit_usage_of(owner)
        if usage_of is None:
            continue
        # Created here, so that a rank without a batch has the same names.
        device = next(owner.parameters()).device
        usage[group.name] = torch.zeros(group.size, dtype=torch.float64, device=device)

        def add(
            module: nn.Module,
            args: tuple,
            output: Any,
            group: UnitGroup = group,
            usage_of: Callable[[Any], Mapping[str, Tensor]] = usage_of,
        ) -> None:
            with torch.no_grad():
                reported = usage_of(output).get(group.kind)
            usage[group.name] += NOT_REPORTED if reported is None else reported.double()

        handles.append(owner.register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def reduce_statistics(statistics: Statistics) -> Statistics:
    """Sum over ranks, then turn sums into means; changes and returns ``statistics``.

    Usage that no module reported is removed.
    """
    total = {'samples': torch.tensor(float(statistics.samples))}
    means = (
        statistics.gradients, statistics.squared_gradients, statistics.usage, statistics.fisher,
    )  # fmt: skip
    inputs = statistics.input_rms, statistics.input_mean_abs, statistics.rows
    for table in (*means, *inputs, total):
        sum_over_ranks(table)
    statistics.samples = int(total['samples'])
    for name in [name for name, usage in statistics.usage.items() if (usage == NOT_REPORTED).all()]:
        del statistics.usage[name]
    for table in means:
        for name in table:
            table[name] /= statistics.samples
    for name, rows in statistics.rows.items():
        rows = rows.clamp_min(1)
        statistics.input_rms[name] = (statistics.input_rms[name] / rows).sqrt()
        statistics.input_mean_abs[name] /= rows
    return statistics
