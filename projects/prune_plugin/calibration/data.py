"""Calibration batches that don't depend on the number of ranks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from mmengine import dist
from mmengine.registry import DATASETS, FUNCTIONS
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..common.errors import UserError
from ..common.model_interface import read_fully
from ..common.random_state import seed_everything
from .loss import guarded


class CalibrationData:
    """Batches of randomly chosen training samples, the same for any number of ranks.

    Rank r of n gets the batches r, r + n, r + 2n, ...

    Args:
        dataloader: An MMEngine dataloader config; its dataset and collate function are used.
        num_samples: Samples over all ranks; all samples of a smaller data set.
        batch_size: Samples per batch.
        seed: Chooses the samples and seeds their augmentation.

    Raises:
        UserError: the data set is empty.
    """

    def __init__(self, dataloader: dict, num_samples: int, batch_size: int, seed: int):
        dataset = dataloader['dataset']
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        read_fully(self.dataset)
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
        """This rank's batches as (batch number over all ranks, number of samples, batch)."""
        rank, world = dist.get_dist_info()
        for number in range(rank, len(self.batches), world):
            samples = []
            for index in self.batches[number].tolist():
                seed_everything(self.seed * 1_000_003 + index)
                samples.append(self.dataset[index])
            yield number, len(samples), self.collate(samples, **self.collate_kwargs)

    def first_sample(self) -> Any:
        """A batch of the first sample only, the same on every rank."""
        index = int(self.batches[0][0])
        seed_everything(self.seed * 1_000_003 + index)
        return self.collate([self.dataset[index]], **self.collate_kwargs)

    def __len__(self) -> int:
        """Number of batches on this rank."""
        rank, world = dist.get_dist_info()
        return len(range(rank, len(self.batches), world))

    #: Whether the activations of one batch are held at a time, at the price of repeated passes.
    one_by_one = False

    @property
    def dense_stream(self) -> 'CalibrationData':
        """The batches that run through the dense model beside the pruned one: the same, unless they are
        hidden states, which differ."""
        return self


class GivenBatches(CalibrationData):
    """Batches that the user made; rank r of n takes the batches r, r + n, ... of them.

    Args:
        batches: The batches, the same on every rank; a batch has as many samples as its first tensor rows.
            Or ``(number, samples, batch)`` each.
        seed: Seeds what is random in the model's forward pass.

    Raises:
        UserError: there are none.
    """

    def __init__(self, batches: Iterable, seed: int):
        self.given = list(batches)
        if not self.given:
            raise UserError('the calibration data holds no batches; give at least one')
        if all(map(is_counted, self.given)):
            sizes = [samples for _, samples, _ in self.given]
            self.given = [batch for _, _, batch in self.given]
        else:
            sizes = [samples_in(batch) for batch in self.given]
        self.batches = torch.arange(sum(sizes)).split(sizes)
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """See :class:`CalibrationData`."""
        rank, world = dist.get_dist_info()
        for number in range(rank, len(self.given), world):
            yield number, len(self.batches[number]), self.given[number]

    def first_sample(self) -> Any:
        """The first batch."""
        return self.given[0]


def is_counted(batch: Any) -> bool:
    """Whether this is ``(number, samples, batch)``, as :class:`CalibrationData` gives it."""
    triple = isinstance(batch, tuple) and len(batch) == 3
    return triple and all(type(number) is int for number in batch[:2])


def samples_in(batch: Any) -> int:
    """How many samples a batch has: the rows of its first tensor."""
    tensors = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim())
    return len(next(tensors, ' ')) or 1


def as_calibration_data(given: Any, seed: int) -> CalibrationData:
    """Calibration data as the methods read it.

    Args:
        given: That already, or batches: a list or a ``torch.utils.data.DataLoader``.
        seed: See :class:`GivenBatches`.

    Raises:
        UserError: it is something else, or holds no batches.
    """
    if isinstance(given, CalibrationData) or hasattr(given, 'batches'):  # or what behaves like it
        return given
    if isinstance(given, Mapping | str | Tensor) or not isinstance(given, Iterable):
        raise UserError(
            f'the calibration data is a {type(given).__name__}; it must be a list of batches, a '
            'DataLoader, or a CalibrationData'
        )
    return GivenBatches(given, seed)


def forward_calls(
    model: nn.Module, data: CalibrationData, loss: Callable[[nn.Module, Any], Tensor]
) -> list[Callable[[], Any]]:
    """One function per batch of this rank that runs the model on it, seeded by the batch's number.

    Raises:
        UserError: fewer batches than ranks.
    """
    if len(data.batches) < dist.get_world_size():
        raise UserError(
            f'prune_cfg.calibration gives {len(data.batches)} batches for {dist.get_world_size()} '
            'ranks; raise num_samples or lower batch_size'
        )

    loss = guarded(loss)

    def call(number: int, batch: Any) -> None:
        seed_everything(data.seed + number)
        loss(model, batch)

    return [partial(call, number, batch) for number, _, batch in data]


def first_share(
    calls: list[Callable[[], Any]], share: float, batches: int
) -> list[Callable[[], Any]]:
    """Of this rank's calls those of the first batches over all ranks.

    Args:
        calls: From :func:`forward_calls`.
        share: Fraction of the batches, in (0, 1]; at least one batch.
        batches: Number of batches over all ranks.
    """
    rank, world = dist.get_dist_info()
    return calls[: len(range(rank, max(1, round(share * batches)), world))]


def dense_calls_of(
    model: nn.Module,
    data: CalibrationData,
    loss: Callable[[nn.Module, Any], Tensor],
    calls: list[Callable[[], Any]],
) -> list[Callable[[], Any]]:
    """Calls that run the dense model: these, or those of the data's dense stream, where it has one."""
    stream = getattr(data, 'dense_stream', data)
    return calls if stream is data else forward_calls(model, stream, loss)


def samples_on_rank(data: Any) -> int:
    """Number of samples in this rank's batches; of what only iterates, the number of its batches."""
    if not hasattr(data, 'batches'):
        return len(data)
    rank, world = dist.get_dist_info()
    return sum(len(batch) for batch in list(data.batches)[rank::world])
