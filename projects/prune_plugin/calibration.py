"""Running calibration batches and gathering the statistics that criteria ask for."""

import logging
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mmengine.dataset  # noqa: F401  registers the collate functions
import torch
from mmengine import dist
from mmengine.logging import print_log
from mmengine.registry import DATASETS, FUNCTIONS
from rich.progress import track
from torch import Tensor, nn

from .distributed import sum_over_ranks
from .errors import UserError
from .gates import Gates
from .modules import CONVERTERS, EQUIVALENT
from .randomness import kept_random_state, seed_everything
from .slim import replace_module
from .units.base import UnitGroup

#: Usage of units of which their module says nothing.
UNTOLD = -math.inf
#: Statistics as large as the weights.
WEIGHT_GRADIENTS = frozenset(('gradients', 'squared_gradients'))
#: (model, batch) -> scalar loss, the mean over the batch's samples.
LossFunction = Callable[[nn.Module, Any], Tensor]


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
        samples: Samples seen by all ranks together.
    """

    gradients: dict[str, Tensor] = field(default_factory=dict)
    squared_gradients: dict[str, Tensor] = field(default_factory=dict)
    input_rms: dict[str, Tensor] = field(default_factory=dict)
    usage: dict[str, Tensor] = field(default_factory=dict)
    fisher: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0


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
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    # PyTorch's fused layers compute something else to rounding, depending on who asks for gradients.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes:
            module.training = training


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
def activation_hooks(
    model: nn.Module, names: set[str], sums: dict[str, Tensor], counts: dict[str, Tensor]
) -> Iterator[None]:
    """Add up the squares of each input feature of the layers that own the weights ``names``."""
    handles = []
    for name in sorted(names):
        module = model.get_submodule(name.rpartition('.')[0])

        def add(module: nn.Module, args: tuple, name: str = name) -> None:
            x = args[0].detach()
            dim = -1 if isinstance(module, nn.Linear) else 1
            rows = x.movedim(dim, -1).flatten(0, -2).double()
            sums[name] += rows.square().sum(0)
            counts[name] += len(rows)

        weight = module.weight
        sums[name] = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
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
        if not hasattr(owner, 'unit_usage'):
            continue
        # There from the start, so that a rank without a batch holds the same names.
        device = next(owner.parameters()).device
        usage[group.name] = torch.zeros(group.size, dtype=torch.float64, device=device)

        def add(module: nn.Module, args: tuple, output: Any, group: UnitGroup = group) -> None:
            with torch.no_grad():
                said = module.unit_usage(output).get(group.kind)
            usage[group.name] += UNTOLD if said is None else said.double()

        handles.append(owner.register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
    """
    statistics = Statistics()
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
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
            activation_hooks(model, read if 'activations' in kinds else set(), sums, counts),
            usage_hooks(model, groups if 'usage' in kinds else [], statistics.usage),
            torch.set_grad_enabled(backward),
        ):
            bar = track(data, 'calibrating', total=len(data), disable=not dist.is_main_process())
            for number, samples, batch in bar:
                batch_info['samples'] = samples
                statistics.samples += samples
                seed_everything(data.seed + number)
                value = loss(model, batch)
                if backward:
                    if not value.requires_grad:
                        raise UserError(
                            'the calibration loss depends on none of the units to be scored; choose '
                            'other units, or a criterion without gradients'
                        )
                    value.backward()
                    gates.settle(samples)
        if statistics.samples:  # a rank may have no batch
            gates.warn()
    return reduce_statistics(statistics, sums, counts)


def reduce_statistics(
    statistics: Statistics, sums: dict[str, Tensor], counts: dict[str, Tensor]
) -> Statistics:
    """Sum over ranks, then turn sums into means."""
    total = {'samples': torch.tensor(float(statistics.samples))}
    means = (
        statistics.gradients, statistics.squared_gradients, statistics.usage, statistics.fisher,
    )  # fmt: skip
    for table in (*means, sums, counts, total):
        sum_over_ranks(table)
    statistics.samples = int(total['samples'])
    for name in [name for name, usage in statistics.usage.items() if (usage == UNTOLD).all()]:
        del statistics.usage[name]
    for table in means:
        for name in table:
            table[name] /= statistics.samples
    statistics.input_rms = {n: (sums[n] / counts[n].clamp_min(1)).sqrt() for n in sums}
    return statistics
