"""Running calibration batches and gathering the statistics that criteria ask for."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import mmengine.dataset  # noqa: F401  registers the collate functions
import torch
from mmengine import dist
from mmengine.logging import print_log
from rich.progress import track
from torch import nn

from ..common.distributed import from_all_ranks
from ..common.errors import UserError
from ..common.eval_mode import evaluation_mode
from ..common.random_state import kept_random_state, seed_everything
from ..structure.modules import CONVERTERS, EQUIVALENT
from ..structure.slimming import replace_module
from ..structure.unit_group import UnitGroup
from .data import CalibrationData
from .loss import LossFunction, mmengine_loss
from .mask_gradients import MaskGradients
from .statistics import (
    WEIGHT_STATISTICS,
    Statistic,
    Statistics,
    activation_hooks,
    gradient_hooks,
    reduce_statistics,
    usage_hooks,
)


@contextmanager
def observable(model: nn.Module, groups: Sequence[UnitGroup]) -> Iterator[None]:
    """Swap modules that run their children's weights unseen for equals whose children do run."""
    swapped = []
    for group in groups:
        for name, converter in group.converts:
            if converter in EQUIVALENT:
                module = model.get_submodule(name)
                swapped.append((name, module))
                replace_module(model, name, CONVERTERS[converter](module))
    try:
        yield
    finally:
        for name, module in swapped:
            replace_module(model, name, module)


def scored_weights(model: nn.Module, groups: Sequence[UnitGroup]) -> dict[str, int]:
    """Number of elements of each parameter that the groups cut, by name."""
    cut = {cut.name for group in groups for cut in group.cuts}
    return {name: p.numel() for name, p in model.named_parameters() if name in cut}


def within_memory(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    kinds: frozenset[Statistic],
    gigabytes: float | None,
) -> list[list[UnitGroup]]:
    """The groups in their order, in parts whose statistics of gradients fit into ``gigabytes``.

    A group that doesn't fit is a part of its own, which is logged.

    Args:
        model: The model.
        groups: The unit groups to be scored.
        kinds: As of :func:`collect`.
        gigabytes: 10^9 bytes, on each rank; None: no limit.
    """
    per_element = 8 * (2 if Statistic.SQUARED_GRADIENTS in kinds else 1)  # see gradient_hooks
    if gigabytes is None or not kinds & WEIGHT_STATISTICS:
        return [list(groups)]
    parts: list[list[UnitGroup]] = []
    held: dict[str, int] = {}
    for group in groups:
        own = scored_weights(model, [group])
        both = {**held, **own}
        if parts and sum(both.values()) * per_element <= gigabytes * 1e9:
            parts[-1].append(group)
            held = both
            continue
        parts.append([group])
        held, size = own, sum(own.values()) * per_element / 1e9
        if size > gigabytes:
            print_log(
                f'gradients of {group.name} alone take {size:.3g} GB, more than '
                f'prune_cfg.calibration.gradient_memory={gigabytes:g}',
                'current',
                logging.WARNING,
            )
    return parts


def check_losses(spoilt: int | None, data: CalibrationData) -> None:
    """Raise :class:`UserError` on all ranks if on one of them the loss of a batch wasn't finite.

    Args:
        spoilt: Number of that batch on this rank, or None.
        data: The batches.
    """
    found = [number for number in from_all_ranks(spoilt) if number is not None]
    if found:
        samples = data.batches[min(found)].tolist()
        raise UserError(
            f'calibration: the loss of batch {min(found)} (samples {", ".join(map(str, samples[:8]))}'
            f'{", ..." * (len(samples) > 8)} of the training data) is NaN or infinite; check these '
            "samples, and the checkpoint's weights"
        )


def collect(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    kinds: frozenset[Statistic],
    data: CalibrationData,
    loss: LossFunction = mmengine_loss,
) -> Statistics:
    """Run the calibration batches and gather what ``kinds`` names.

    The model runs in evaluation mode (no dropout, batch norm on its running statistics), and random
    numbers are seeded batch by batch, so that one rank and many see the same.

    Args:
        model: The model, not wrapped. Its weights, modes and random states are left as they were.
        groups: The unit groups to be scored.
        kinds: What to gather.
        data: The batches.
        loss: Gives the loss whose gradients are gathered.

    Returns:
        The statistics, equal on all ranks.

    Raises:
        UserError: a loss isn't finite, or no unit has to do with it.
    """
    statistics = Statistics()
    batch_info = {'samples': 0}
    scored = scored_weights(model, groups)
    read = {cut.name for group in groups for cut in group.cuts if cut.side == 'out'}
    of_weights = bool(kinds & WEIGHT_STATISTICS)
    with evaluation_mode(model), kept_random_state(), observable(model, groups):
        gates = MaskGradients(model, groups if Statistic.FISHER in kinds else [])
        statistics.fisher = gates.squares
        backward = of_weights or bool(gates.groups)
        with (
            gates.watching(),
            gradient_hooks(model, scored if of_weights else (), statistics, kinds, batch_info),
            activation_hooks(model, read if Statistic.ACTIVATIONS in kinds else set(), statistics),
            usage_hooks(model, groups if Statistic.USAGE in kinds else [], statistics.usage),
            torch.set_grad_enabled(backward),
        ):
            spoilt: int | None = None
            bar = track(data, 'calibrating', total=len(data), disable=not dist.is_main_process())
            with closing(bar):
                for number, samples, batch in bar:
                    batch_info['samples'] = samples
                    statistics.samples += samples
                    seed_everything(data.seed + number)
                    value = loss(model, batch)
                    if not bool(value.isfinite().all()):
                        spoilt = number
                        break
                    if backward:
                        if not value.requires_grad:
                            raise UserError(
                                'the calibration loss depends on none of the units to be scored; '
                                'choose other units, or a criterion without gradients'
                            )
                        value.backward()
                        gates.settle(samples)
        check_losses(spoilt, data)
        if statistics.samples:  # a rank may have no batch
            gates.warn()
    return reduce_statistics(statistics)
