"""Figures as text tables in MMEngine's log."""

import io
import math
from collections.abc import Iterable, Sequence

from mmengine.logging import print_log
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def shown(value: float | int | str) -> str:
    """A table cell: four digits after the point, counts as they are, a dash for nan."""
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return '-'
    return f'{value:,d}' if isinstance(value, int) else f'{value:.4f}'


def log_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence], notes: Iterable[str] = ()
) -> None:
    """Write a table to the current logger.

    Args:
        title: What stands above it.
        columns: Headings; the first column is text, the others are figures.
        rows: Cells, each text or a number (nan is shown as a dash).
        notes: Lines below the table.
    """
    table = Table(title=title, title_justify='left', box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify='right' if i else 'left', no_wrap=True)
    for row in rows:
        table.add_row(*(shown(cell) for cell in row))
    text = io.StringIO()
    Console(file=text, width=140, color_system=None, force_terminal=False).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    print_log('\n' + '\n'.join([*lines, *notes]).strip('\n'), 'current')


def ratio(part: float, whole: float) -> float:
    """``part / whole``, and nan where there is nothing to divide by."""
    return float(part) / float(whole) if whole else math.nan


def mean(values: Sequence[float]) -> float:
    """The mean, and nan of nothing."""
    return ratio(sum(values), len(values))
