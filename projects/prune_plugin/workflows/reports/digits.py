"""Numbers for people: those that are compared have equally many digits."""

import math
from collections.abc import Sequence

#: Below it numbers are written with an exponent, from the other on without decimals.
SMALL, LARGE = 1e-3, 1000.0
#: Digits of the largest number of a row, and of the smallest at least.
DIGITS, LEAST = 4, 2


def number(value: float | None, unit: str = '') -> str:
    """A number with thousands marks; a dash for what wasn't measured."""
    if value is None:
        return '-'
    shown = f'{value:,.0f}' if abs(value) >= LARGE else f'{value:.4g}'
    return f'{shown}{unit}'


def decimals(values: Sequence[float | None]) -> int:
    """Decimals by which numbers of a row tell apart: the largest has four digits, each at least two.

    Args:
        values: The numbers; None for what wasn't measured.
    """
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes or max(sizes) >= LARGE or all(size.is_integer() for size in map(float, sizes)):
        return 0
    largest, smallest = (math.floor(math.log10(size)) for size in (max(sizes), min(sizes)))
    return max(DIGITS - 1 - largest, min(LEAST - 1 - smallest, DIGITS + 1), 0)


def numbers(values: Sequence[float | None], unit: str = '') -> list[str]:
    """Numbers of a row, with equally many decimals.

    Args:
        values: The numbers; None for what wasn't measured.
        unit: What stands behind each.
    """
    sizes = [abs(value) for value in values if value]
    if sizes and max(sizes) < SMALL:
        return ['-' if v is None else f'{v:.{DIGITS - 1}e}{unit}' for v in values]
    places = decimals(values)
    return ['-' if value is None else f'{value:,.{places}f}{unit}' for value in values]


def difference(first: float | None, value: float | None, row: Sequence[float | None]) -> str:
    """How far ``value`` is from the first of its row, with the decimals of that row; empty if unknown."""
    if first is None or value is None:
        return ''
    if value == first:
        return '='
    small = max(abs(v) for v in row if v is not None) < SMALL
    return f'{value - first:+.1e}' if small else f'{value - first:+,.{decimals(row)}f}'
