"""What calibration sees of a model: hooks that add up, and the sums over ranks."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..common.distributed import sum_over_ranks
from ..common.model_interface import unit_usage_of
from ..structure.unit_group import UnitGroup

#: Usage of units of which their module says nothing.
UNTOLD = -math.inf


@dataclass
class Statistics:
    """What calibration gathered, by parameter name, summed over ranks.

    Attributes:
        gradients: Mean gradient over samples, float64, shaped as the parameter.
        squared_gradients: Mean over batches of the squared gradient, likewise.
        usage: How much each unit was used, per sample, by group name, float64 (group.size,).
        fisher: Mean over batches of the squared derivative of the loss by a gate on each unit, by
            group name, float64 (group.size,).
        input_rms: Root mean square of each input feature of the layer that owns a weight, (in,).
        input_mean_abs: Mean absolute value, likewise.
        rows: How many rows they are of.
        samples: Samples seen by all ranks together.
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
def gradient_hooks(
    model: nn.Module,
    names: Collection[str],
    statistics: Statistics,
    kinds: frozenset[str],
    batch: dict,
) -> Iterator[None]:
    """Fold each parameter's gradient into the statistics as soon as it is there, then free it.

    Only the scored parameters ask for gradients meanwhile, frozen ones among them.
    """
    wanted = dict(model.named_parameters())
    frozen = {parameter: parameter.requires_grad for parameter in model.parameters()}
    handles = []
    for name, parameter in wanted.items():
        parameter.requires_grad_(name in names)
        if name not in names:
            continue
        statistics.gradients[name] = torch.zeros_like(parameter, dtype=torch.float64)
        if 'squared_gradients' in kinds:
            statistics.squared_gradients[name] = torch.zeros_like(parameter, dtype=torch.float64)

        def fold(parameter: Tensor, name: str = name) -> None:
            gradient = parameter.grad.double()
            statistics.gradients[name].add_(gradient, alpha=batch['samples'])
            if name in statistics.squared_gradients:
                statistics.squared_gradients[name].addcmul_(
                    gradient, gradient, value=batch['samples']
                )
            parameter.grad = None

        handles.append(parameter.register_post_accumulate_grad_hook(fold))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, requires_grad in frozen.items():
            parameter.requires_grad_(requires_grad)


@contextmanager
def activation_hooks(model: nn.Module, names: set[str], statistics: Statistics) -> Iterator[None]:
    """Add up squares and absolute values of the inputs of the layers that own the weights ``names``."""
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
    """Add up what the groups' owners say of their units' use, where they say (see ``Usage``)."""
    handles = []
    for group in groups:
        owner = model.get_submodule(group.owner)
        tell = unit_usage_of(owner)
        if tell is None:
            continue
        # There from the start, so that a rank without a batch holds the same names.
        device = next(owner.parameters()).device
        usage[group.name] = torch.zeros(group.size, dtype=torch.float64, device=device)

        def add(
            module: nn.Module, args: tuple, output: Any, group: UnitGroup = group, tell: Any = tell
        ) -> None:
            with torch.no_grad():
                said = tell(output).get(group.kind)
            usage[group.name] += UNTOLD if said is None else said.double()

        handles.append(owner.register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def reduce_statistics(statistics: Statistics) -> Statistics:
    """Sum over ranks, then turn sums into means."""
    total = {'samples': torch.tensor(float(statistics.samples))}
    means = (
        statistics.gradients, statistics.squared_gradients, statistics.usage, statistics.fisher,
    )  # fmt: skip
    inputs = statistics.input_rms, statistics.input_mean_abs, statistics.rows
    for table in (*means, *inputs, total):
        sum_over_ranks(table)
    statistics.samples = int(total['samples'])
    for name in [name for name, usage in statistics.usage.items() if (usage == UNTOLD).all()]:
        del statistics.usage[name]
    for table in means:
        for name in table:
            table[name] /= statistics.samples
    for name, rows in statistics.rows.items():
        rows = rows.clamp_min(1)
        statistics.input_rms[name] = (statistics.input_rms[name] / rows).sqrt()
        statistics.input_mean_abs[name] /= rows
    return statistics
