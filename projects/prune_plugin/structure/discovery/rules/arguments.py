"""Arguments of operations."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def first_tensor(args: Any) -> Tensor:
    """The first tensor among arguments."""
    return next(x for x in tree_leaves(args) if isinstance(x, Tensor))


def as_dims(dims: Any, rank: int) -> list[int]:
    """A dimension, a list of them, or None for all, as non-negative ints."""
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return list(range(rank))
    return [d % rank for d in ([dims] if isinstance(dims, int) else dims)]


def argument(func: Any, args: tuple, kwargs: dict, name: str, default: Any = None) -> Any:
    """An argument of an operation by its name in the schema."""
    for place, entry in enumerate(func._schema.arguments):
        if entry.name == name:
            if place < len(args):
                return args[place]
            return kwargs.get(name, entry.default_value if default is None else default)
    return default
