"""Statistics of gradients, activations and unit usage: hooks that accumulate them, sums over ranks."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..common.distributed import sum_over_ranks
from ..common.errors import UserError
from ..common.model_interface import unit_usage_of
from ..structure.unit_group import Cut, UnitGroup
from .layer_inputs import mirror
from .readers import ObservedWeights, is_layer_input

#: Usage of units whose module doesn't report it.
NOT_REPORTED = -math.inf


class Statistic(StrEnum):
    """Kinds of statistics that a criterion can need."""

    GRADIENTS = 'gradients'
    SQUARED_GRADIENTS = 'squared_gradients'
    FISHER = 'fisher'
    ACTIVATIONS = 'activations'
    USAGE = 'usage'
    GRAMS = 'grams'
    OUTPUT_GRADIENTS = 'output_gradients'


#: Statistics that depend on the loss.
GRADIENT_STATISTICS = frozenset(
    (
        Statistic.GRADIENTS,
        Statistic.SQUARED_GRADIENTS,
        Statistic.FISHER,
        Statistic.OUTPUT_GRADIENTS,
    )
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
        rows: Number of input rows (tokens, pixels) that ``input_rms`` and ``input_mean_abs`` are over; for
            weights that no layer holds, of each feature.
        usage: How much each unit was used, per sample; by group name, float64 (group.size,).
        expert_outputs: Mean norm of what each expert adds to the tokens that are routed to it, its weight
            included; by group name, float64 (group.size,).
        expert_tokens: Number of these tokens, likewise.
        fisher: Mean over batches, weighted by their samples, of the squared gradient of the unit masks
            (see :class:`MaskGradients`); by group name, float64 (group.size,).
        grams: Mean over rows of the outer product of what a layer reads with itself, float64 (in, in), of a
            convolution with its kernel's taps; for linear layers and ungrouped 2-D convolutions.
        gram_sums: Sum over rows of what these layers read, float64 (in,).
        gram_rows: Number of these rows.
        output_gradients: Root mean square over rows of the loss's gradient at the outputs of these layers,
            float64 (out,).
        samples: Number of samples.
    """

    gradients: dict[str, Tensor] = field(default_factory=dict)
    squared_gradients: dict[str, Tensor] = field(default_factory=dict)
    input_rms: dict[str, Tensor] = field(default_factory=dict)
    input_mean_abs: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    usage: dict[str, Tensor] = field(default_factory=dict)
    expert_outputs: dict[str, Tensor] = field(default_factory=dict)
    expert_tokens: dict[str, Tensor] = field(default_factory=dict)
    fisher: dict[str, Tensor] = field(default_factory=dict)
    grams: dict[str, Tensor] = field(default_factory=dict)
    gram_sums: dict[str, Tensor] = field(default_factory=dict)
    gram_rows: dict[str, Tensor] = field(default_factory=dict)
    output_gradients: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0


@contextmanager
def activation_hooks(
    model: nn.Module, cuts: Mapping[str, Cut], statistics: Statistics
) -> Iterator[None]:
    """Sum squares and absolute values of what weights read.

    Args:
        model: The model.
        cuts: A cut of the columns of each weight, by name.
        statistics: Added to.
    """
    handles = []
    others: dict[str, tuple[Tensor, int]] = {}
    for name in sorted(cuts):
        module = model.get_submodule(name.rpartition('.')[0])
        is_layer = is_layer_input(model, cuts[name])
        weight = module.get_parameter(name.rpartition('.')[2])
        width = weight.shape[cuts[name].dim or 0]
        for table in (statistics.input_rms, statistics.input_mean_abs):
            table[name] = torch.zeros(width, dtype=torch.float64, device=weight.device)
        shape = () if is_layer else (width,)
        statistics.rows[name] = torch.zeros(shape, dtype=torch.float64, device=weight.device)
        if is_layer:
            handles.append(module.register_forward_pre_hook(layer_input_hook(name, statistics)))
        else:
            others[name] = weight, cuts[name].dim or 0
    try:
        with ObservedWeights(others, partial(add_rows, statistics)) if others else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def layer_input_hook(name: str, statistics: Statistics) -> Callable[[nn.Module, tuple], None]:
    """A forward pre-hook that adds what a layer reads to the statistics of its weight."""

    def add(module: nn.Module, args: tuple) -> None:
        x = args[0].detach()
        dim = -1 if isinstance(module, nn.Linear) else 1
        rows = x.movedim(dim, -1).flatten(0, -2).double()
        statistics.input_rms[name] += rows.square().sum(0)
        statistics.input_mean_abs[name] += rows.abs().sum(0)
        statistics.rows[name] += len(rows)

    return add


def add_rows(statistics: Statistics, name: str, columns: Tensor, rows: Tensor) -> None:
    """Add what some columns of a weight read; see :class:`ObservedWeights`."""
    rows = rows.double()
    columns = columns.to(rows.device)
    statistics.input_rms[name].index_add_(0, columns, rows.square().sum(0))
    statistics.input_mean_abs[name].index_add_(0, columns, rows.abs().sum(0))
    count = torch.full((len(columns),), float(len(rows)), dtype=torch.float64, device=rows.device)
    statistics.rows[name].index_add_(0, columns, count)


def check_observed(statistics: Statistics) -> None:
    """Raise :class:`UserError` for weights that no layer holds if it wasn't seen what they read.

    A layer that no batch reaches scores zero, which is right.
    """
    for name, rows in statistics.rows.items():
        if rows.dim() and not bool(rows.any()):
            raise UserError(
                f'prune_cfg.calibration: what {name} reads cannot be observed in this model; take a '
                'criterion of weights or gradients, such as L1 or Taylor, or name it in prune_cfg.exclude'
            )


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
    experts = statistics.expert_outputs, statistics.expert_tokens
    grams = statistics.grams, statistics.gram_sums, statistics.gram_rows
    for table in (*means, *inputs, *experts, *grams, total):
        sum_over_ranks(table)
    statistics.samples = int(total['samples'])
    for name in [name for name, usage in statistics.usage.items() if (usage == NOT_REPORTED).all()]:
        del statistics.usage[name]
    for table in means:
        for name in table:
            table[name] /= statistics.samples
    for name, tokens in statistics.expert_tokens.items():
        statistics.expert_outputs[name] /= tokens.clamp_min(1)
    for name, gram in statistics.grams.items():
        mirror(gram.div_(statistics.gram_rows[name].clamp_min(1)))
    for name, rows in statistics.rows.items():
        rows = rows.clamp_min(1)
        statistics.input_rms[name] = (statistics.input_rms[name] / rows).sqrt()
        statistics.input_mean_abs[name] /= rows
    return statistics
