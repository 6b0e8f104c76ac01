"""Running calibration batches and gathering the statistics that criteria ask for."""

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import mmengine.dataset  # noqa: F401  registers the collate functions
import torch
from mmengine import dist
from mmengine.logging import print_log
from mmengine.registry import DATASETS, FUNCTIONS
from rich.progress import track
from torch import Tensor, nn

from ..common.distributed import from_all_ranks
from ..common.errors import UserError
from ..common.eval_mode import in_eval_mode
from ..common.random_state import kept_random_state, seed_everything
from ..structure.modules import CONVERTERS, EQUIVALENT
from ..structure.slimming import replace_module
from ..structure.unit_group import UnitGroup
from .mask_gradients import Gates
from .statistics import Statistics, activation_hooks, gradient_hooks, reduce_statistics, usage_hooks

#: Statistics as large as the weights.
WEIGHT_GRADIENTS = frozenset(('gradients', 'squared_gradients'))
#: (model, batch) -> scalar loss, the mean over the batch's samples.
LossFunction = Callable[[nn.Module, Any], Tensor]


class CalibrationData:
    """The same batches for any number of ranks: rank r takes every world-size-th one.

    Args:
        dataloader: An MMEngine dataloader config; its dataset and collate function are used.
        num_samples: Samples in all; a smaller data set gives all it has.
        batch_size: Samples per batch, on one rank.
        seed: Chooses the samples and seeds their augmentation.
    """

    def __init__(self, dataloader: dict, num_samples: int, batch_size: int, seed: int):
        dataset = dataloader['dataset']
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()
        if not len(self.dataset):
            raise UserError('prune_cfg.calibration: the training data set is empty')
        collate = dict(dataloader.get('collate_fn') or {'type': 'pseudo_collate'})
        self.collate = FUNCTIONS.get(collate.pop('type'))
        self.collate_kwargs = collate
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self.dataset), generator=generator)[:num_samples]
        self.batches = chosen.split(batch_size)
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """This rank's batches as (number, samples, batch)."""
        rank, world = dist.get_dist_info()
        for number in range(rank, len(self.batches), world):
            samples = []
            for index in self.batches[number].tolist():
                seed_everything(self.seed * 1_000_003 + index)
                samples.append(self.dataset[index])
            yield number, len(samples), self.collate(samples, **self.collate_kwargs)

    def first_sample(self) -> Any:
        """A batch of the first sample alone, the same on every rank."""
        index = int(self.batches[0][0])
        seed_everything(self.seed * 1_000_003 + index)
        return self.collate([self.dataset[index]], **self.collate_kwargs)

    def __len__(self) -> int:
        rank, world = dist.get_dist_info()
        return len(range(rank, len(self.batches), world))


def mmengine_loss(
    model: nn.Module, batch: Any, weights: Mapping[str, float] | None = None
) -> Tensor:
    """Training loss of an MMEngine model, its parts weighted; see :func:`weighted_losses`."""
    data = model.data_preprocessor(batch, True)
    losses = model._run_forward(data, mode='loss')
    if weights:
        losses = weighted_losses(losses, weights, getattr(model, 'loss_task', None))
    return model.parse_losses(losses)[0]


def weighted_losses(
    losses: Mapping[str, Any],
    weights: Mapping[str, float],
    task_of: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """The losses, each times the weight of its task, or 1.

    Args:
        losses: Tensors, or lists of tensors, by name, as a model returns them.
        weights: By task, where the model knows tasks; else by regular expressions on loss names.
        task_of: ``model.loss_task``: the task of a loss, by its name.

    Raises:
        UserError: a key that fits no loss.
    """
    names = [name for name in losses if 'loss' in name]
    owner = {name: task_of(name) if task_of else name for name in names}
    fits = (lambda key, word: key == word) if task_of else re.match
    for key in weights:
        if not any(fits(key, word) for word in owner.values()):
            raise UserError(
                f'prune_cfg.calibration.loss_weights has {key!r}, which is no loss of this model; '
                f'valid are {", ".join(dict.fromkeys(owner.values()))}'
            )
    result = dict(losses)
    for name, word in owner.items():
        factor = math.prod(weight for key, weight in weights.items() if fits(key, word))
        value = losses[name]
        result[name] = [v * factor for v in value] if isinstance(value, list) else value * factor
    return result


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """No dropout, batch norms on their running statistics; then every module's mode as before."""
    fast = torch.backends.mha.get_fastpath_enabled()
    # PyTorch's fused layers compute something else to rounding, depending on who asks for gradients.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with in_eval_mode(model):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


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
    model: nn.Module, groups: Sequence[UnitGroup], kinds: frozenset[str], gigabytes: float | None
) -> list[list[UnitGroup]]:
    """The groups in their order, in parts whose statistics of gradients fit into ``gigabytes``.

    A group that doesn't fit is a part of its own, which is logged.

    Args:
        model: The model.
        groups: The unit groups to be scored.
        kinds: As of :func:`collect`.
        gigabytes: 10^9 bytes, on each rank; None: no limit.
    """
    per_element = 8 * len(kinds & {'squared_gradients'} | {'gradients'})  # see gradient_hooks
    if gigabytes is None or not kinds & WEIGHT_GRADIENTS:
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
    kinds: frozenset[str],
    data: CalibrationData,
    loss: LossFunction = mmengine_loss,
) -> Statistics:
    """Run the calibration batches and gather what ``kinds`` names.

    The model runs in evaluation mode (no dropout, batch norm on its running statistics), and random
    numbers are seeded batch by batch, so that one rank and many see the same.

    Args:
        model: The model, not wrapped. Its weights, modes and random states are left as they were.
        groups: The unit groups to be scored.
        kinds: Subset of ``{'gradients', 'squared_gradients', 'activations', 'fisher', 'usage'}``.
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
    of_weights = bool(kinds & WEIGHT_GRADIENTS)
    with evaluation_mode(model), kept_random_state(), observable(model, groups):
        gates = Gates(model, groups if 'fisher' in kinds else [])
        statistics.fisher = gates.squares
        backward = of_weights or bool(gates.groups)
        with (
            gates.watching(),
            gradient_hooks(model, scored if of_weights else (), statistics, kinds, batch_info),
            activation_hooks(model, read if 'activations' in kinds else set(), statistics),
            usage_hooks(model, groups if 'usage' in kinds else [], statistics.usage),
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
