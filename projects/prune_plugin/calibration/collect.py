"""Running calibration batches and collecting the statistics that criteria need."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mmengine.dataset  # noqa: F401  registers the collate functions
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..common.distributed import from_all_ranks
from ..common.errors import UserError
from ..common.eval_mode import evaluation_mode
from ..common.model_argument import check_values
from ..common.progress import Bar
from ..common.random_state import kept_random_state, seed_everything
from ..common.unchanged import unchanged
from ..structure.modules import CONVERTERS, EQUIVALENT
from ..structure.modules.eager_experts import has_experts_kernel
from ..structure.slimming import replace_module
from ..structure.unit_group import UnitGroup
from .data import CalibrationData, samples_on_rank
from .expert_outputs import expert_hooks
from .gradient_sums import GradientSums, sum_dtype
from .gram_hooks import gram_hooks, gram_layers
from .layer_inputs import weight_matrix
from .loss import LossFunction, checked_loss, guarded, mmengine_loss
from .loss_scale import LossScale
from .mask_gradients import MaskGradients
from .output_gradients import output_gradients
from .statistics import (
    WEIGHT_STATISTICS,
    Statistic,
    Statistics,
    activation_hooks,
    check_observed,
    reduce_statistics,
    usage_hooks,
)


@contextmanager
def observable(model: nn.Module, groups: Sequence[UnitGroup]) -> Iterator[None]:
    """Replace modules that use their children's weights directly by equivalents that call the children.

    So hooks on the children run. The original modules are put back at the end.
    """
    swapped = []
    wanted = [pair for g in groups for pair in g.converts if pair[1] in EQUIVALENT]
    holders = dict.fromkeys(cut.name.rpartition('.')[0] for g in groups for cut in g.cuts)
    modules = dict(model.named_modules())
    wanted += [
        (n, 'EagerExperts') for n in holders if n in modules and has_experts_kernel(modules[n])
    ]
    encoders = [m for m in modules.values() if isinstance(m, nn.TransformerEncoder)]
    nested = [encoder.use_nested_tensor for encoder in encoders]
    for name, converter in dict.fromkeys(wanted):
        module = model.get_submodule(name)
        swapped.append((name, module))
        replace_module(model, name, CONVERTERS[converter](module))
    try:
        yield
    finally:
        for name, module in swapped:
            replace_module(model, name, module)
        for encoder, value in zip(encoders, nested, strict=True):
            encoder.use_nested_tensor = value


def scored_weights(model: nn.Module, groups: Sequence[UnitGroup]) -> dict[str, int]:
    """Number of elements of each parameter that the groups cut, by name."""
    cut = {cut.name for group in groups for cut in group.cuts}
    return {name: p.numel() for name, p in model.named_parameters() if name in cut}


def statistics_sizes(
    model: nn.Module, group: UnitGroup, kinds: frozenset[Statistic]
) -> dict[str, int]:
    """Bytes that the large statistics of a group take, by the weights that they are of."""
    if Statistic.GRAMS in kinds:
        layers = gram_layers(model, [group])
        return {n: 8 * weight_matrix(m).shape[1] ** 2 for n, m in layers.items()}
    per_element = sum_dtype(next(model.parameters()).device).itemsize
    per_element *= 2 if Statistic.SQUARED_GRADIENTS in kinds else 1
    return {name: per_element * numel for name, numel in scored_weights(model, [group]).items()}


def within_memory(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    kinds: frozenset[Statistic],
    gigabytes: float | None,
) -> list[list[UnitGroup]]:
    """Split the groups, in order, into parts whose gradient statistics fit into ``gigabytes``.

    A group that alone takes more is a part by itself, and a warning is logged.

    Args:
        model: The model.
        groups: The unit groups to score.
        kinds: See :func:`collect`.
        gigabytes: Memory limit on each rank, in 10^9 bytes; None: no limit.
    """
    if gigabytes is None or not kinds & {*WEIGHT_STATISTICS, Statistic.GRAMS}:
        return [list(groups)]
    parts: list[list[UnitGroup]] = []
    part_sizes: dict[str, int] = {}
    for group in groups:
        group_sizes = statistics_sizes(model, group, kinds)
        together = {**part_sizes, **group_sizes}
        if parts and sum(together.values()) <= gigabytes * 1e9:
            parts[-1].append(group)
            part_sizes = together
            continue
        parts.append([group])
        part_sizes, size = group_sizes, sum(group_sizes.values()) / 1e9
        if size > gigabytes:
            what = 'gradients' if kinds & WEIGHT_STATISTICS else 'products of the inputs'
            print_log(
                f'{what} of {group.name} alone take {size:.3g} GB, more than '
                f'prune_cfg.calibration.gradient_memory={gigabytes:g}',
                'current',
                logging.WARNING,
            )
    return parts


def check_losses(bad_batch: int | None, data: CalibrationData) -> None:
    """Raise :class:`UserError` on all ranks if the loss of a batch was not finite on any rank.

    Args:
        bad_batch: Number of the first such batch on this rank, or None.
        data: The batches.
    """
    bad_batches = [number for number in from_all_ranks(bad_batch) if number is not None]
    if bad_batches:
        first = min(bad_batches)
        samples = data.batches[first].tolist()
        raise UserError(
            f'calibration: the loss of batch {first} (samples {", ".join(map(str, samples[:8]))}'
            f'{", ..." * (len(samples) > 8)} of the training data) is NaN or infinite; check these '
            "samples, and the checkpoint's weights"
        )


def backpropagate(
    value: Tensor,
    samples: int,
    scale: LossScale,
    sums: GradientSums,
    mask_gradients: MaskGradients,
) -> None:
    """Compute the gradients of a batch and add them to the statistics.

    Args:
        value: The loss.
        samples: Of which it is the mean.
        scale: Lowered until no gradient overflows.
        sums: Gradients of weights.
        mask_gradients: Gradients of masks.

    Raises:
        UserError: the loss depends on none of the units.
    """
    if not value.requires_grad:
        raise UserError(
            'the calibration loss depends on none of the units to be scored, or comes without its gradient '
            '(as after .detach()); choose other units, or a criterion without gradients'
        )
    sums.begin_batch(samples)
    while True:
        scale.backward(value)
        found = [*sums.pending, *mask_gradients.gradients.values()] if scale.is_needed else []
        if all(bool(gradient.isfinite().all()) for gradient in found):
            break
        sums.discard()
        mask_gradients.discard()
        scale.halve()
    sums.end_batch(scale.factor)
    mask_gradients.end_batch(samples, scale.factor)


def collect(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    kinds: frozenset[Statistic],
    data: CalibrationData,
    loss: LossFunction = mmengine_loss,
) -> Statistics:
    """Run the calibration batches and collect the statistics that ``kinds`` names.

    The model runs in evaluation mode (no dropout, batch norm with its running statistics). Random
    numbers are seeded batch by batch, so the result doesn't depend on the number of ranks.

    Args:
        model: The model, not wrapped; its weights, training modes and the random states are restored.
        groups: The unit groups to score.
        kinds: The statistics to collect.
        data: The batches.
        loss: Computes the loss whose gradients are collected.

    Returns:
        The statistics, equal on all ranks.

    Raises:
        UserError: a loss isn't finite, is no scalar, fails, or depends on none of the units.
    """
    check_values(dict(model.named_parameters()), 'calibration runs the model')
    loss = guarded(loss)
    statistics = Statistics()
    scored = scored_weights(model, groups)
    inner = [group for group in groups if group.kind != 'expert']
    readers = {cut.name: cut for group in inner for cut in group.cuts if cut.side == 'out'}
    of_experts = kinds & {Statistic.ACTIVATIONS, Statistic.USAGE}
    of_weights = bool(kinds & WEIGHT_STATISTICS)
    scale = LossScale(model)
    with (
        evaluation_mode(model),
        kept_random_state(),
        unchanged(model),
        observable(model, groups),
    ):
        mask_gradients = MaskGradients(model, groups if Statistic.FISHER in kinds else [])
        statistics.fisher = mask_gradients.squares
        sums = GradientSums(
            model, scored if of_weights else (), statistics, kinds, by_batch=scale.is_needed
        )
        backward = of_weights or bool(mask_gradients.groups)
        with (
            sums.recording(),
            mask_gradients.recording(),
            activation_hooks(model, readers if Statistic.ACTIVATIONS in kinds else {}, statistics),
            expert_hooks(
                model,
                groups if of_experts else [],
                statistics.expert_outputs,
                statistics.expert_tokens,
            ),
            usage_hooks(model, groups if Statistic.USAGE in kinds else [], statistics.usage),
            gram_hooks(model, inner if Statistic.GRAMS in kinds else [], statistics),
            torch.set_grad_enabled(backward),
        ):
            bad_batch: int | None = None
            with Bar() as bar:
                passes = samples_on_rank(data) * (3.0 if backward else 1.0)
                task = bar.add_task('calibrating', total=len(data), passes=passes)
                for number, samples, batch in data:
                    statistics.samples += samples
                    seed_everything(data.seed + number)
                    value = checked_loss(loss(model, batch), backward)
                    if not bool(value.isfinite().all()):
                        bad_batch = number
                        break
                    if backward:
                        backpropagate(value, samples, scale, sums, mask_gradients)
                    del value  # under a scale it holds the graph
                    bar.advance(task)
        check_losses(bad_batch, data)
        if statistics.samples:  # a rank may have no batch
            mask_gradients.warn_unreached()
        if Statistic.OUTPUT_GRADIENTS in kinds:
            layers = {n.rpartition('.')[0]: n for n in gram_layers(model, inner)}
            key = 'prune_cfg.criterion.gradients'
            found = output_gradients(model, list(layers), data, loss, 1.0, key)
            statistics.output_gradients = {layers[path]: size for path, size in found.items()}
    reduce_statistics(statistics)
    check_observed(statistics)
    return statistics
