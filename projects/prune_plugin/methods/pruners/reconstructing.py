"""A reconstruction around a pruning: the dense weights wait in a file until the model is pruned."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ...calibration.data import CalibrationData
from ...calibration.loss import LossFunction
from ...common.errors import UserError
from ...common.registry import RECONSTRUCTIONS, build_optional
from ...common.timing import timed
from ...structure.prune_state import PruneState
from ..reconstruction import Reconstruction
from ..schedules import OneShot, Schedule
from .data_source import DataUser
from .layer_progress import LayerProgress

#: Trains the pruned model, given which weights are kept.
Train = Callable[[Mapping[str, Tensor]], Any]


def built_reconstruction(cfg: Mapping | None, schedule: Schedule) -> Reconstruction | None:
    """The ``reconstruction`` block of a pruner.

    Raises:
        UserError: it isn't valid, or there are rounds of pruning and training.
    """
    key = 'prune_cfg.reconstruction'
    found: Reconstruction | None = build_optional(RECONSTRUCTIONS, cfg, key)
    if found is not None and not isinstance(schedule, OneShot):
        raise UserError(
            f'{key} does not go with rounds of pruning and training, which '
            f'prune_cfg.schedule.type {type(schedule).__name__!r} asks for; take OneShot'
        )
    return found


def users_of(method: Reconstruction | None) -> list[DataUser]:
    """A reconstruction, if there is one, as a method that needs calibration data."""
    if method is None:
        return []
    return [DataUser(f'prune_cfg.reconstruction {type(method).__name__}', 'leave it out')]


@contextmanager
def dense_weights(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Copies of parameters, by name, that are read from a temporary file when they are used."""
    parameters = dict(model.named_parameters())
    with TemporaryDirectory(prefix='dense_weights_') as folder:
        path = Path(folder) / 'weights.pth'
        torch.save({name: parameters[name].detach().cpu() for name in names}, path)
        yield torch.load(path, map_location='cpu', mmap=True, weights_only=True)


@contextmanager
def reconstructing(
    method: Reconstruction | None,
    model: nn.Module,
    names: Iterable[str],
    batches: Callable[[], CalibrationData],
    loss: LossFunction,
    seconds: dict[str, float],
    progress: LayerProgress | None,
) -> Iterator[Train]:
    """Around the pruning of a model: gives what to call with the masks, once it is pruned.

    Args:
        method: The reconstruction; None: that call does nothing.
        model: The model, still dense.
        names: Parameters that pruning may change.
        batches: Gives the calibration batches.
        loss: Gives the loss of the model on a batch.
        seconds: Where to add the time that it takes.
        progress: Where finished layers are kept; the reconstruction has a folder of its own in it.
    """
    if method is None:
        yield lambda masks: None
        return
    own = progress.below('reconstruction') if progress else None
    with dense_weights(model, names) as dense:

        def train(masks: Mapping[str, Tensor]) -> None:
            with timed(seconds, 'reconstruct'):
                method.apply(model, dense, masks, batches(), loss, own)

        yield train


def unit_masks(model: nn.Module, state: PruneState) -> dict[str, Tensor]:
    """Which weights the kept units have: bool by parameter name, of the parameters that lose some.

    Args:
        model: The model that ``state`` refers to.
        state: The units to keep.
    """
    parameters = dict(model.named_parameters())
    masks: dict[str, Tensor] = {}
    for group in state.reduced:
        removed = state.removed(group.name)
        for cut in group.cuts:
            if cut.name not in parameters or cut.dim is None:
                continue
            whole = torch.ones(parameters[cut.name].shape, dtype=torch.bool)
            mask = masks.setdefault(cut.name, whole)
            mask.index_fill_(cut.dim, cut.indices(group.size)[removed].flatten(), False)
    return masks


def changed_by(model: nn.Module, state: PruneState) -> set[str]:
    """Parameters that removing units, and making up for them, may change: all of modules that are cut."""
    owners = {cut.name.rpartition('.')[0] for group in state.reduced for cut in group.cuts}
    return {n for n, _ in model.named_parameters() if n.rpartition('.')[0] in owners}
