"""Reading checkpoints safely, checking them against a model, writing them in one step."""

import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from ..common.errors import UserError, error_context
from ..common.fileio import atomic_write
from ..common.model_interface import checkpoint_for, checkpoint_meta_of
from ..structure.prunable_weights import check_finite
from ..structure.prune_state import PruneState
from .packed_masks import check_packed
from .zip_integrity import check_archive


def history_statistic(owner: Any, name: str) -> Any:
    """What pickle's ``getattr`` may look up in a training checkpoint: a HistoryBuffer's statistics."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
    return getattr(owner, name)


NUMPY = np._core if hasattr(np, '_core') else np.core
#: What MMEngine's training checkpoints hold beside tensors and plain data (its logged histories).
SAFE_GLOBALS = [
    HistoryBuffer,
    (history_statistic, 'builtins.getattr'),
    NUMPY.multiarray._reconstruct,
    NUMPY.multiarray.scalar,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(name)) for name in ('uint32', 'int32', 'int64', 'float32', 'float64', 'bool')},
]
#: What reading a damaged file may end in, beside :class:`pickle.UnpicklingError`.
UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


def load_file(path: str | os.PathLike, map_location: str = 'cpu') -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``; nothing in it is run.

    Its checksums are compared first, so that no damaged number is read; files in PyTorch's format from
    before 1.6 have none.

    Returns:
        The checkpoint; a bare state dict comes back as ``{'state_dict': ...}``.

    Raises:
        UserError: the file is missing, truncated, damaged, holds code, or isn't a checkpoint.
    """
    if not os.path.isfile(path):
        raise UserError(f'checkpoint {path} does not exist; give a .pth file')
    try:
        check_archive(path)
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            data = torch.load(path, map_location=map_location, weights_only=True)
    except PermissionError as error:
        raise UserError(f'checkpoint {path} cannot be read ({error.strerror})') from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(
            f'checkpoint {path} is truncated or damaged: {error}; take another copy of it'
        ) from error
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        why = f'it refers to {found[1]}' if found else 'it is no file of torch.save'
        raise UserError(
            f'checkpoint {path} cannot be loaded: {why}; only tensors and plain data are accepted '
            '(weights_only=True)'
        ) from error
    except UNREADABLE as error:
        raise UserError(
            f'checkpoint {path} is truncated or not a checkpoint; give a .pth file written by '
            'torch.save'
        ) from error
    if isinstance(data, Mapping) and not isinstance(data.get('state_dict'), Mapping):
        data = {'state_dict': data}
    if not isinstance(data, Mapping) or not any(
        isinstance(value, Tensor) for value in data['state_dict'].values()
    ):
        raise UserError(f'{path} is not a checkpoint: it holds no state_dict of tensors')
    data = dict(data)
    if data.get('meta') is None:
        data.pop('meta', None)
    for key in ('meta', 'masks'):
        if not isinstance(data.get(key, {}), Mapping):
            raise UserError(
                f'checkpoint {path}: {key} is a {type(data[key]).__name__}; it must be a dict'
            )
    with error_context(f'checkpoint {path}'):
        prune_state_of(data)
        check_packed(data.get('masks', {}), data['state_dict'])
    return data


def last_saved(folder: Path) -> str | None:
    """The name of the checkpoint that a training in ``folder`` saved last, as it left word there."""
    pointer, link = folder / 'last_checkpoint', folder / 'latest.pth'
    if pointer.is_file() and (name := Path(pointer.read_text().strip()).name):
        return name
    return os.readlink(link) if link.is_symlink() else None  # killed while it left word


def newest_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The training checkpoint saved last that is whole; None if there is none.

    Which one was last is what ``last_checkpoint`` or ``latest.pth`` say; if that isn't whole, or they are
    gone, the one of most epochs or iterations. Time stamps don't count. Unlike MMEngine's
    ``find_latest_checkpoint`` it is right even after a kill while one was being written.
    """
    folder = Path(folder)
    found = {}
    for path in folder.glob('*.pth'):
        if number := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', path.name):
            found[path] = int(number[1])
    last = folder / (last_saved(folder) or '')
    limit = found.get(last, max(found.values(), default=0))  # what is above is of an earlier run
    candidates = [
        p for p in sorted(found, key=found.__getitem__, reverse=True) if found[p] <= limit
    ]
    if last.is_file() and last not in found:
        candidates.insert(0, last)
    for path in candidates:
        try:
            load_file(path)
        except UserError as error:
            print_log(f'{error}; an older one is taken', 'current')
        else:
            return path
    return None


def use_safe_loader() -> None:
    """Have MMEngine's Runner read local files through :func:`load_file` too."""

    @CheckpointLoader.register_scheme(prefixes='', force=True)
    def load_from_local(filename: str, map_location: Any = 'cpu') -> dict[str, Any]:
        return load_file(os.path.expanduser(filename), map_location)


def prune_state_of(checkpoint: Mapping) -> PruneState | None:
    """The prune state that a checkpoint carries, or None for a dense one."""
    data = (checkpoint.get('meta') or {}).get('prune_state')
    return None if data is None else PruneState.from_dict(data)


def model_meta(model: nn.Module) -> dict[str, Any]:
    """What ``model.checkpoint_meta()`` wants kept beside its weights; nothing without the method."""
    return checkpoint_meta_of(model)


def adapted(model: nn.Module, checkpoint: Mapping, path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint as the model wants it.

    ``model.adapt_checkpoint(checkpoint, path)``, if there is such a method, returns a checkpoint
    with renamed or dropped tensors, or raises a ``UserError`` where the weights are of no use to
    the model as it is configured (an image normalisation that differs, say).

    Raises:
        UserError: as the method says; or a weight is not finite (buffers may be: masks are).
    """
    found = checkpoint_for(model, checkpoint, path)
    weights = without_wrapper(found['state_dict'])
    buffers = dict(model.named_buffers())
    check_finite({k: v for k, v in weights.items() if k not in buffers}, f'checkpoint {path}: ')
    return found


def without_wrapper(weights: Mapping) -> dict[str, Any]:
    """Weights by the names that they have in the model itself, not in its distributed wrapper."""
    return {str(name).removeprefix('module.'): value for name, value in weights.items()}


def tensor_kind(value: Any) -> str:
    """What must agree of a tensor to be loaded: its shape, and of what kind its numbers are."""
    if not isinstance(value, Tensor):
        return f'a {type(value).__name__}'
    kind = '' if value.is_floating_point() else ' complex' if value.is_complex() else ' whole'
    layout = '' if value.layout == torch.strided else ' sparse'
    return f'{tuple(value.shape)}{kind}{layout}'


def load_weights(model: nn.Module, checkpoint: Mapping, path: str | os.PathLike) -> None:
    """Load ``checkpoint['state_dict']``; every name and shape must fit.

    The model may have it :func:`adapted` first.

    Raises:
        UserError: names what is missing, unexpected, of another shape or not finite; the model isn't
            touched.
    """
    checkpoint = adapted(model, checkpoint, path)
    given = checkpoint['state_dict']
    weights = without_wrapper(given)
    expected = model.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys())
    shapes = sorted(
        f'{k} {tensor_kind(weights[k])} instead of {tensor_kind(v)}'
        for k, v in expected.items()
        if k in weights and tensor_kind(weights[k]) != tensor_kind(v)
    )
    if len(weights) < len(given):
        unexpected += sorted(str(name) for name in given if str(name).startswith('module.'))
    faults = [
        f'{len(names)} {what} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
        for what, names in (('missing', missing), ('unexpected', unexpected), ('misshapen', shapes))
        if names
    ]
    if faults:
        raise UserError(
            f'checkpoint {path} belongs to another model than the config: tensors '
            + ' '.join('; '.join(faults).split())  # damaged names may hold line breaks
        )
    model.load_state_dict(weights)


def save_file(data: Any, path: str | os.PathLike) -> None:
    """Write ``data`` with ``torch.save``: either the whole file appears, or nothing changes."""
    with atomic_write(path, 'wb') as file:
        torch.save(data, file)
