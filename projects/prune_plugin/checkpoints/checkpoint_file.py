"""Reading checkpoints safely, validating them against a model, and writing them atomically."""

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
from ..common.model_argument import check_model
from ..common.model_interface import checkpoint_for, checkpoint_meta_of
from ..structure.prunable_weights import check_finite
from ..structure.prune_state import PruneState
from ..structure.slimming import check_fits
from .claimed_sizes import check_claims
from .packed_masks import check_packed
from .seal import check_seal
from .zip_integrity import check_archive


def history_statistic(owner: Any, name: str) -> Any:
    """Replacement for ``getattr`` while unpickling: allows only the statistics of a HistoryBuffer."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
    return getattr(owner, name)


#: Where other tools put the weights.
OTHER_KEYS = ('model', 'model_state_dict', 'net', 'network', 'module', 'weights', 'params')
NUMPY = np._core if hasattr(np, '_core') else np.core
#: Globals in MMEngine's training checkpoints beside tensors and plain data (its logged histories).
SAFE_GLOBALS = [
    HistoryBuffer,
    (history_statistic, 'builtins.getattr'),
    NUMPY.multiarray._reconstruct,
    NUMPY.multiarray.scalar,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(name)) for name in ('uint32', 'int32', 'int64', 'float32', 'float64', 'bool')},
]
#: Exceptions that reading a damaged file may raise, beside :class:`pickle.UnpicklingError`.
UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


def load_file(path: str | os.PathLike, map_location: str = 'cpu') -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``, so that no code in it is executed.

    The checksums of the file are verified first; files in PyTorch's format before 1.6 have none.

    Args:
        path: The file.
        map_location: Device on which to put the tensors.

    Returns:
        The checkpoint; a bare state dict is returned as ``{'state_dict': ...}``.

    Raises:
        UserError: the file is missing, truncated or damaged, contains code, or isn't a checkpoint.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f'the path of a checkpoint is {path!r}; it must be the name of a file')
    if not os.path.isfile(path):
        state = 'is a directory' if os.path.isdir(path) else 'does not exist'
        raise UserError(f'checkpoint {path} {state}; give a .pth file')
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
        match = re.search(r'GLOBAL (\S+)', str(error))
        reason = f'it refers to {match[1]}' if match else 'it was not written by torch.save'
        raise UserError(
            f'checkpoint {path} cannot be loaded: {reason}; only tensors and plain data are accepted '
            '(weights_only=True)'
        ) from error
    except UNREADABLE as error:
        raise UserError(
            f'checkpoint {path} is truncated or not a checkpoint; give a .pth file written by '
            'torch.save'
        ) from error
    check_claims(data, path)
    if isinstance(data, Mapping) and not isinstance(data.get('state_dict'), Mapping):
        data = with_state_dict(data, path)
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
    check_seal(data, path)
    return data


def with_state_dict(data: Mapping, path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint of another tool with its weights under ``state_dict``.

    Raises:
        UserError: several entries may be the weights.
    """

    def holds_tensors(value: Any) -> bool:
        return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())

    if holds_tensors(data):  # a bare state dict
        return {'state_dict': data}
    found = [key for key in OTHER_KEYS if holds_tensors(data.get(key))]
    if not found:
        return {'state_dict': data}
    if len(found) > 1:
        raise UserError(
            f'checkpoint {path} holds weights under {" and ".join(found)}; keep one of them, as state_dict'
        )
    print_log(f'the weights of checkpoint {path} are its entry {found[0]!r}', 'current')
    return {'state_dict': data[found[0]], 'meta': data.get('meta')}


def last_saved(folder: Path) -> str | None:
    """Name of the latest checkpoint according to ``last_checkpoint`` or ``latest.pth``, or None."""
    pointer, link = folder / 'last_checkpoint', folder / 'latest.pth'
    if pointer.is_file() and (name := Path(pointer.read_text().strip()).name):
        return name
    return os.readlink(link) if link.is_symlink() else None  # killed between the two


def newest_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The latest training checkpoint in ``folder`` that can be loaded; None if there is none.

    The latest one is that named by ``last_checkpoint`` or ``latest.pth``. If it is damaged or they don't
    exist, the one with the largest number of epochs or iterations is taken; modification times are
    ignored. Unlike MMEngine's ``find_latest_checkpoint`` this works even if a run was killed while writing
    a checkpoint.
    """
    folder = Path(folder)
    numbers = {}
    for path in folder.glob('*.pth'):
        if match := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', path.name):
            numbers[path] = int(match[1])
    last = folder / (last_saved(folder) or '')
    limit = numbers.get(last, max(numbers.values(), default=0))  # later ones are of an earlier run
    candidates = [
        p for p in sorted(numbers, key=numbers.__getitem__, reverse=True) if numbers[p] <= limit
    ]
    if last.is_file() and last not in numbers:
        candidates.insert(0, last)
    for path in candidates:
        try:
            load_file(path)
        except UserError as error:
            print_log(f'{error}; an older one is used', 'current')
        else:
            return path
    return None


def use_safe_loader() -> None:
    """Make MMEngine's Runner read local checkpoints with :func:`load_file`."""

    @CheckpointLoader.register_scheme(prefixes='', force=True)
    def load_from_local(filename: str, map_location: Any = 'cpu') -> dict[str, Any]:
        return load_file(os.path.expanduser(filename), map_location)


def prune_state_of(checkpoint: Mapping) -> PruneState | None:
    """The prune state in a checkpoint's ``meta``; None for a dense checkpoint.

    Raises:
        UserError: the prune state is malformed, or this is no checkpoint.
    """
    check_mapping(checkpoint)
    meta = checkpoint.get('meta') or {}
    if not isinstance(meta, Mapping):
        raise UserError(f"the checkpoint's meta is a {type(meta).__name__}; it must be a dict")
    data = meta.get('prune_state')
    return None if data is None else PruneState.from_dict(data)


def check_mapping(checkpoint: Any) -> None:
    """Raise :class:`UserError` unless this is a dict, as checkpoints are."""
    if not isinstance(checkpoint, Mapping):
        given = 'None' if checkpoint is None else f'a {type(checkpoint).__name__}'
        raise UserError(
            f'the checkpoint is {given}; it must be a dict with a state_dict, as load_checkpoint(path) '
            'returns it'
        )


def model_meta(model: nn.Module) -> dict[str, Any]:
    """Entries for a checkpoint's ``meta`` from ``model.checkpoint_meta()``; empty without the method."""
    return checkpoint_meta_of(model)


def adapted(model: nn.Module, checkpoint: Mapping, path: str | os.PathLike) -> dict[str, Any]:
    """Adapt a checkpoint to ``model``, and check that its weights are finite.

    A model may define ``adapt_checkpoint(checkpoint, path)``, which returns a checkpoint with renamed or
    removed tensors, or raises a ``UserError`` if the weights don't match the model's configuration (another
    image normalisation, for instance).

    Args:
        model: The model.
        checkpoint: The checkpoint, which isn't changed.
        path: Its file, for messages.

    Raises:
        UserError: raised by the method; or a parameter isn't finite (buffers, such as masks, may hold
            infinity).
    """
    result = checkpoint_for(model, checkpoint, path)
    weights = strip_module_prefix(result['state_dict'])
    buffers = dict(model.named_buffers())
    check_finite({k: v for k, v in weights.items() if k not in buffers}, f'checkpoint {path}: ')
    return result


def strip_module_prefix(weights: Mapping) -> dict[str, Any]:
    """Weights by their names in the model: the prefix ``module.`` of a distributed wrapper is removed."""
    return {str(name).removeprefix('module.'): value for name, value in weights.items()}


def tensor_signature(value: Any) -> str:
    """Properties that must match for a tensor to be loaded: shape, kind of number, layout."""
    if not isinstance(value, Tensor):
        return f'a {type(value).__name__}'
    kind = '' if value.is_floating_point() else ' complex' if value.is_complex() else ' whole'
    layout = '' if value.layout == torch.strided else ' sparse'
    return f'{tuple(value.shape)}{kind}{layout}'


def load_weights(model: nn.Module, checkpoint: Mapping, path: str | os.PathLike) -> None:
    """Load ``checkpoint['state_dict']``, after :func:`adapted`; all names and shapes must match.

    Args:
        model: The model.
        checkpoint: The checkpoint.
        path: Its file, for messages.

    Raises:
        UserError: there is no state_dict, or its tensors are missing, unexpected, of another shape, or not
            finite; the model isn't changed.
    """
    check_model(model)
    check_mapping(checkpoint)
    if not isinstance(checkpoint.get('state_dict'), Mapping):
        raise UserError(
            f'checkpoint {path} has no state_dict; give what load_checkpoint(path) returns, or '
            "{'state_dict': weights}"
        )
    checkpoint = adapted(model, checkpoint, path)
    stored = checkpoint['state_dict']
    weights = strip_module_prefix(stored)
    expected = model.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys())
    shapes = sorted(
        f'{k} {tensor_signature(weights[k])} instead of {tensor_signature(v)}'
        for k, v in expected.items()
        if k in weights and tensor_signature(weights[k]) != tensor_signature(v)
    )
    if len(weights) < len(stored):
        unexpected += sorted(str(name) for name in stored if str(name).startswith('module.'))
    mismatches = [
        f'{len(names)} {what} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
        for what, names in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('mismatched', shapes),
        )
        if names
    ]
    if mismatches:
        mismatches += advice(model, checkpoint)
        raise UserError(
            f'checkpoint {path} belongs to another model than the config: tensors '
            + ' '.join('; '.join(mismatches).split())  # damaged names may contain line breaks
        )
    model.load_state_dict(weights)


def advice(model: nn.Module, checkpoint: Mapping) -> list[str]:
    """What to do where a dense model was given for a slim checkpoint; nothing where that isn't so."""
    try:
        state = prune_state_of(checkpoint)
        if state is None or not state.reduced:
            return []
        check_fits(model, state)
    except UserError:
        return []
    return ['the checkpoint is of a slim model: call slim(model, prune_state_of(checkpoint)) first']


def save_file(data: Any, path: str | os.PathLike) -> None:
    """Write ``data`` with ``torch.save``, atomically."""
    with atomic_write(path, 'wb') as file:
        torch.save(data, file)
