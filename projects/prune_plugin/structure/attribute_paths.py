"""Integers that a module reads: attributes, or entries of a config, mapping or sequence that it holds."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from torch import nn


def is_count(value: Any) -> bool:
    """Whether a value is a whole number above 0."""
    return type(value) is int and value > 0


def get(module: nn.Module, path: str) -> Any:
    """The value at a path, or None."""
    name, _, inner = path.partition('.')
    value = getattr(module, name, None)
    if not inner:
        return value
    if isinstance(value, Mapping):
        return value.get(inner)
    if isinstance(value, tuple | list):
        return value[int(inner)] if inner.isdigit() and int(inner) < len(value) else None
    return getattr(value, inner, None)


def put(module: nn.Module, path: str, number: int) -> None:
    """Set the value at a path; what holds it is copied first, as other modules may share it."""
    name, _, inner = path.partition('.')
    if not inner:
        setattr(module, name, number)
        return
    holder = getattr(module, name)
    if isinstance(holder, tuple | list):
        items = list(holder)
        items[int(inner)] = number
        setattr(module, name, type(holder)(items))
        return
    holder = copy(holder)
    if isinstance(holder, Mapping):
        holder[inner] = number  # type: ignore[index]
    else:
        setattr(holder, inner, number)
    setattr(module, name, holder)
