"""What a checkpoint says of sizes, held against the size of its file before anything is made of it."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..common.errors import UserError

#: Most entries of containers that are walked through, whatever the size of the file.
MOST_ENTRIES = 50_000_000
#: Entries that even the smallest file may hold.
LEAST_ENTRIES = 10_000


def check_claims(data: Any, path: str | os.PathLike) -> None:
    """Refuse what would take far more memory or time than the file's size accounts for.

    That is a tensor whose elements take more bytes than the file has, as one value can be shown as often
    as its strides say; and containers that hold each other so often that they can't be walked through,
    or themselves.

    Args:
        data: What was read.
        path: The file.

    Raises:
        UserError: it claims more than it holds.
    """
    size = os.path.getsize(path)
    limit = min(max(size, LEAST_ENTRIES), MOST_ENTRIES)
    stack, count = [data], 0
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            check_tensor(value, size, path)
            continue
        if isinstance(value, Mapping):
            inner: Any = value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            inner = value
        else:
            continue
        count += len(inner) + 1
        if count > limit:
            raise UserError(
                f'checkpoint {path} is damaged: its containers hold themselves or each other, and have '
                f'more than the {limit:,} entries that {size:,} bytes can say'
            )
        stack.extend(inner)


def check_tensor(tensor: Tensor, size: int, path: str | os.PathLike) -> None:
    """Refuse a tensor with more bytes than the file."""
    if tensor.is_sparse or tensor.is_quantized:
        return
    claimed = tensor.numel() * tensor.element_size()
    if claimed > size:
        raise UserError(
            f'checkpoint {path} is damaged: a tensor of shape {tuple(tensor.shape)} takes {claimed:,} '
            f'bytes, and the file has {size:,}'
        )
