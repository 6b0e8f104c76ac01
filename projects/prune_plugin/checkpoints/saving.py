"""Writing a checkpoint from Python: complete, sealed if it is pruned, or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError, error_context
from .checkpoint_file import prune_state_of, save_file
from .packed_masks import check_packed
from .seal import seal


def save_checkpoint(data: Any, path: str | os.PathLike) -> None:
    """Write a checkpoint with ``torch.save``, atomically; a pruned one is sealed.

    Args:
        data: ``{'state_dict': model.state_dict(), **pruned.describe()}``, for instance; it isn't changed.
        path: The file; its directory has to be there.

    Raises:
        UserError: there is no such directory, or the prune state or the masks are malformed.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f'the path of a checkpoint is {path!r}; it must be the name of a file')
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(
            f'checkpoint {path} cannot be written: {path.parent} is no directory; make it first'
        )
    if path.is_dir():
        raise UserError(f'checkpoint {path} is a directory; name a file in it')
    if isinstance(data, Mapping) and ('meta' in data or 'masks' in data):
        with error_context(f'checkpoint {path}'):
            prune_state_of(data)
            check_packed(data.get('masks') or {}, data.get('state_dict') or {})
        data = {**data, 'meta': dict(data.get('meta') or {})}
        seal(data)
    save_file(data, path)
