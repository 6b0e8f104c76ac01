"""The seal of a pruned checkpoint: a digest over what its weights can't tell, so that edits are noticed.

It covers the prune state, the masks, and names and shapes of all weights, not their values, which
training changes. It is no signature: whoever edits a file on purpose can seal it again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from ..common.errors import UserError

#: Entry of ``meta``.
KEY = 'prune_seal'


class Policy:
    """Whether files whose seal doesn't fit are read; set by ``--unsealed``."""

    accept_broken = False


def seal_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The digest of a checkpoint, in hexadecimal; None for a dense one.

    Args:
        checkpoint: With ``state_dict``, and ``meta.prune_state`` or ``masks``.
    """
    state = (checkpoint.get('meta') or {}).get('prune_state')
    masks = checkpoint.get('masks') or {}
    if state is None and not masks:
        return None
    sha = hashlib.sha256()
    sha.update(json.dumps(state, sort_keys=True, default=repr).encode())
    weights = checkpoint.get('state_dict') or {}
    shapes = {str(n).removeprefix('module.'): w.shape for n, w in weights.items() if is_tensor(w)}
    sha.update(json.dumps({n: list(shape) for n, shape in sorted(shapes.items())}).encode())
    for name, entry in sorted(masks.items()):
        sha.update(f'{name}:{list(entry["shape"])}:'.encode())
        sha.update(entry['bits'].cpu().numpy().tobytes())
    return sha.hexdigest()


def is_tensor(value: Any) -> bool:
    """Whether an entry of a state dict is a tensor; modules may save other things."""
    return isinstance(value, Tensor)


def seal(checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint's seal into its ``meta``, if it is pruned; done again after each change."""
    digest = seal_of(checkpoint)
    if digest is not None:
        checkpoint.setdefault('meta', {})[KEY] = digest


def check_seal(checkpoint: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Compare a checkpoint with its seal; one without, of an earlier version, gets a line in the log.

    Args:
        checkpoint: The content of a file.
        path: The file, for messages.

    Raises:
        UserError: the seal doesn't fit, and :class:`Policy` doesn't accept that.
    """
    digest = seal_of(checkpoint)
    if digest is None:
        return
    written = (checkpoint.get('meta') or {}).get(KEY)
    if written is None:
        print_log(f'checkpoint {path} has no seal: it was written by an earlier version', 'current')
    elif written != digest:
        said = (
            f'checkpoint {path} was changed after it was written: its prune state, masks or shapes '
            f"don't fit meta.{KEY}"
        )
        if not Policy.accept_broken:
            raise UserError(f'{said}; take the file as it was, or read it all the same: --unsealed')
        print_log(f'{said}; it is read all the same', 'current', level=30)
