"""Checks of single values of a config: each raises a UserError that names the key and the value."""

import sys
from collections.abc import Iterable, Sequence
from math import inf, prod
from typing import Any

from .errors import UserError

#: Whole numbers in a config stay below this: tensors and random generators take no larger ones.
LARGEST = 2**31
#: Numbers in one sample of an ``input_shape``, at most: 1 GB in float32.
LARGEST_SAMPLE = 2**28
#: Seconds that a measurement may be given, at most: a day.
MOST_SECONDS = 86400


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite int or float; True and False are none, nor is what float can't hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def at_least(name: str, value: Any, least: int, most: int = LARGEST - 1) -> None:
    """Raise :class:`UserError` unless ``value`` is an int from ``least`` to ``most``."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least:
        raise UserError(f'{name} is {value!r}; it must be a whole number >= {least}')
    if value > most:
        raise UserError(f'{name} is {value!r}; it must be a whole number from {least} to {most}')


def check_number(name: str, value: Any, low: float, high: float, least: bool = False) -> None:
    """Raise :class:`UserError` unless ``low < value < high`` (``low <= value`` with ``least``)."""
    if not is_number(value) or not (low < value < high or (least and value == low)):
        limit = '' if high == inf else f' and < {high:g}'
        raise UserError(
            f'{name} is {value!r}; it must be a number {">=" if least else ">"} {low:g}{limit}'
        )


def one_of(key: str, value: Any, valid: Iterable[str]) -> str:
    """``value`` if it is among ``valid``."""
    valid = list(valid)  # in a dict, only what can be hashed may be looked up
    if value not in valid:
        raise UserError(f'{key} is {value!r}; valid are {", ".join(map(str, valid))}')
    return value


def check_shape(key: str, shape: Any) -> None:
    """Raise :class:`UserError` unless ``shape`` is that of one sample: a list of whole numbers >= 1."""
    if isinstance(shape, str | bytes) or not isinstance(shape, Sequence):
        raise UserError(f'{key} is {shape!r}; it must be a list such as (3, 224, 224)')
    for width in shape:
        at_least(key, width, 1)
    if prod(shape) > LARGEST_SAMPLE:
        raise UserError(
            f'{key} is {shape!r}, {prod(shape)} numbers in a sample; it must be at most {LARGEST_SAMPLE}'
        )


def checked_ratio(ratio: float, key: str = 'prune_cfg.budget.ratio') -> float:
    """``ratio`` if it is a number in (0, 1)."""
    if not is_number(ratio):
        raise UserError(f'{key} is {ratio!r}; it must be a number in [0, 1), the fraction removed')
    if not 0 <= ratio < 1:
        raise UserError(f'{key} is {ratio}; it must be in [0, 1), the fraction removed')
    if ratio == 0:
        raise UserError(f'{key} is 0, which removes nothing; give a fraction removed in (0, 1)')
    return float(ratio)
