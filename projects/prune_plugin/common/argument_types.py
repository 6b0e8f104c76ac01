"""Whether values in a config are of the types that a class declares for its arguments."""

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

from .errors import UserError

PLAIN = (bool, int, float, str, list, tuple, dict)


def check_arguments(key: str, cls: type, given: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` for a value of another type than the constructor's annotation says.

    Args:
        key: Of the config, for the message.
        cls: The class; what its annotations leave open is left open here.
        given: Its arguments.
    """
    try:
        hints = typing.get_type_hints(inspect.unwrap(cls.__init__))  # type: ignore[misc]
    except (AttributeError, NameError, TypeError):
        return
    for name, value in given.items():
        allowed = plain_types(hints[name]) if name in hints else None
        if allowed is None or value is None or isinstance(value, allowed):
            continue
        if float in allowed and isinstance(value, int):
            continue
        what = ' or '.join(kind.__name__ for kind in allowed)
        raise UserError(f'{key}.{name} is {value!r}; it must be of type {what}')


def plain_types(hint: Any) -> tuple[type, ...] | None:
    """The built-in types that a hint allows; None if it allows more."""
    if hint is type(None):
        return ()
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        found: tuple[type, ...] = ()
        for part in typing.get_args(hint):
            inner = plain_types(part)
            if inner is None:
                return None
            found += inner
        return found
    kind = typing.get_origin(hint) or hint
    return (kind,) if kind in PLAIN else None
