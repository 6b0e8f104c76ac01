"""Integers that a module reads: attributes, or entries of a config, mapping or sequence that it holds."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from torch import nn


def is_count(value: Any) -> bool:
    """Whether a value is a whole number above 0."""
    return type(value) is int and value > 0


def get(module: nn.Module, path: str) -> Any:
    """The value at a path, or None."""
    name, *keys = path.split('.')
    value = getattr(module, name, None)
    for depth, key in enumerate(keys):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, tuple | list):
            value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
        else:  # of what an object holds in its turn, only mappings and sequences count
            value = None if depth else getattr(value, key, None)
    return value


def put(module: nn.Module, path: str, number: int) -> None:
    """Set the value at a path; what holds it is copied first, as other modules may share it."""
    name, *keys = path.split('.')
    setattr(module, name, replaced(getattr(module, name), keys, number) if keys else number)


def replaced(holder: Any, keys: Sequence[str], number: int) -> Any:
    """A copy of a mapping, sequence or object with another number in one of its entries."""
    key, *inner = keys
    if isinstance(holder, tuple | list):
        items = list(holder)
        items[int(key)] = replaced(items[int(key)], inner, number) if inner else number
        return type(holder)(items)
    holder = copy(holder)
    if isinstance(holder, Mapping):
        holder[key] = replaced(holder[key], inner, number) if inner else number  # type: ignore[index]
    else:
        setattr(holder, key, replaced(getattr(holder, key), inner, number) if inner else number)
    return holder
