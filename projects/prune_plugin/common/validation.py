"""Validation of single config values: each check raises a UserError with the key and the value."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite, prod
from numbers import Real
from typing import Any

from .errors import UserError

#: Exclusive upper limit of integers in a config, set by tensor sizes and random seeds.
INT_LIMIT = 2**31
#: Largest number of elements of one sample (``input_shape``): 1 GiB in float32.
MAX_SAMPLE_ELEMENTS = 2**28
#: Longest duration of a measurement, in seconds: one day.
MAX_SECONDS = 86400


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite real number, within the range of float: NumPy's, too; no bool."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return isfinite(float(value))
    except OverflowError:  # an int that no float holds
        return False


def at_least(name: str, value: Any, least: int, most: int = INT_LIMIT - 1) -> None:
    """Raise :class:`UserError` unless ``value`` is an int in [least, most]."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least:
        raise UserError(f'{name} is {value!r}; it must be a whole number >= {least}')
    if value > most:
        raise UserError(f'{name} is {value!r}; it must be a whole number from {least} to {most}')


def check_number(name: str, value: Any, low: float, high: float, least: bool = False) -> None:
    """Raise :class:`UserError` unless ``low < value < high`` (``low <= value`` if ``least``)."""
    if not is_number(value) or not (low < value < high or (least and value == low)):
        limit = '' if high == inf else f' and < {high:g}'
        raise UserError(
            f'{name} is {value!r}; it must be a number {">=" if least else ">"} {low:g}{limit}'
        )


def check_fraction(name: str, value: Any) -> None:
    """Raise :class:`UserError` unless a value is a number in [0, 1]."""
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f'{name} is {value!r}; it must be a number in [0, 1]')


def one_of(key: str, value: Any, valid: Iterable[str]) -> str:
    """Return ``value``; raise :class:`UserError` if it isn't among ``valid``."""
    valid = list(valid)  # looking up an unhashable value in a dict would raise
    if value not in valid:
        raise UserError(f'{key} is {value!r}; valid are {", ".join(map(str, valid))}')
    return value


def check_shape(key: str, shape: Any) -> None:
    """Raise :class:`UserError` unless ``shape`` is a valid shape of one sample: a list of ints >= 1."""
    if isinstance(shape, str | bytes) or not isinstance(shape, Sequence):
        raise UserError(f'{key} is {shape!r}; it must be a list such as (3, 224, 224)')
    for width in shape:
        at_least(key, width, 1)
    if prod(shape) > MAX_SAMPLE_ELEMENTS:
        raise UserError(
            f'{key} is {shape!r}, {prod(shape)} elements in a sample; it must be at most '
            f'{MAX_SAMPLE_ELEMENTS}'
        )


def checked_ratio(ratio: float, key: str = 'prune_cfg.budget.ratio') -> float:
    """Return ``ratio``, a fraction removed, as a float; raise :class:`UserError` unless in (0, 1)."""
    if not is_number(ratio):
        raise UserError(f'{key} is {ratio!r}; it must be a number in (0, 1), the fraction removed')
    if not 0 <= ratio < 1:
        raise UserError(f'{key} is {ratio}; it must be in (0, 1), the fraction removed')
    if ratio == 0:
        raise UserError(f'{key} is 0, which removes nothing; give a fraction removed in (0, 1)')
    return float(ratio)
