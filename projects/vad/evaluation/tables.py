"""Figures as text tables in MMEngine's log."""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence

from mmengine.logging import print_log
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

#: Columns of a table where there is no terminal.
WIDEST = 140

#: How tables are drawn, the first that fits the terminal: digits behind the point, and columns that
#: headings are broken at and names of rows are (None: at none).
STYLES = ((4, None, None), (4, 8, None), (3, 5, 20))


def shown(value: float | int | str, digits: int = 4) -> str:
    """A table cell: digits after the point, counts as they are, a dash for nan."""
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return '-'
    return f'{value:,d}' if isinstance(value, int) else f'{value:.{digits}f}'


def log_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence], notes: Iterable[str] = ()
) -> None:
    """Write a table to the current logger, made narrower where the terminal is.

    Args:
        title: What stands above it.
        columns: Headings; the first column is text, the others are figures.
        rows: Cells, each text or a number (nan is shown as a dash).
        notes: Lines below the table.
    """
    rows, terminal = [list(row) for row in rows], Console()
    width = terminal.width if terminal.is_terminal else WIDEST
    lines: list[str] = []
    for style in STYLES:
        lines = drawn(title, columns, rows, *style)
        if max(map(len, lines)) <= width:
            break
    print_log('\n' + '\n'.join([*lines, *notes]).strip('\n'), 'current')


def drawn(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence],
    digits: int,
    heading: int | None,
    name: int | None,
) -> list[str]:
    """A table as lines of text; see :data:`STYLES`."""
    narrow = heading is not None
    table = Table(
        title=title, title_justify='left', box=SIMPLE_HEAD, pad_edge=not narrow,
        padding=0 if narrow else (0, 1),
    )  # fmt: skip
    for i, column in enumerate(columns):
        table.add_column(broken(column, heading), justify='right' if i else 'left', no_wrap=True)
    for first, *cells in rows:
        table.add_row(broken(shown(first), name), *(shown(cell, digits) for cell in cells))
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def broken(text: str, width: int | None) -> str:
    """A text in lines of at most ``width`` columns, broken between words."""
    return text if width is None else '\n'.join(textwrap.wrap(text, width, break_long_words=False))


def ratio(part: float, whole: float) -> float:
    """``part / whole``, and nan where there is nothing to divide by."""
    return float(part) / float(whole) if whole else math.nan


def mean(values: Sequence[float]) -> float:
    """The mean, and nan of nothing."""
    return ratio(sum(values), len(values))
