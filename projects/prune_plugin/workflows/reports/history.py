"""Pruning in rounds: as a table for the terminal, as CSV, as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table

from ...common.fileio import atomic_write
from ...common.json_csv import write_csv
from .console import number

if TYPE_CHECKING:
    from ..history import History


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in percent; a dash for None."""
    return '-' if value is None else f'{100 * value:.{digits}f} %'


def cells(history: 'History') -> list[list[float | int | None]]:
    """One row per round: number, ratio, sparsity, then three values for each headline metric."""
    rows = []
    for row in history.rows:
        line: list[float | int | None] = [row.round, row.ratio, row.sparsity]
        for metric in history.headline:
            line += [(m or {}).get(metric) for m in (row.after_prune, row.after_training)]
            line.append(history.recovered(row, metric))
        rows.append(line)
    return rows


def write_history(history: 'History', folder: Path) -> None:
    """Write ``history.csv`` and, with matplotlib and metrics, ``history.png``."""
    header = ['iteration', 'ratio', 'sparsity']
    for metric in history.headline:
        header += [f'{metric} {when}' for when in ('after pruning', 'after training', 'recovery')]
    write_csv(header, cells(history), folder / 'history.csv')
    if history.headline and history.rows:
        plot_history(history, folder / 'history.png')


def print_history(history: 'History', console: Console | None = None) -> None:
    """Print one line per round, and how the last compares with the dense model."""
    title = f'pruning in rounds: {len(history.rows)} of {history.planned} done'
    table = Table(title=title, title_justify='left')
    table.add_column('iteration', justify='right')
    table.add_column('sparsity', justify='right')
    for metric in history.headline:
        name = metric.rpartition('/')[2]
        for column in (f'{name} after pruning', 'after training', 'recovery'):
            table.add_column(column, justify='right')
    dense = [(history.dense or {}).get(metric) for metric in history.headline]
    table.add_row('dense', '', *(text for value in dense for text in (number(value), '', '')))
    for row, line in zip(history.rows, cells(history), strict=True):
        values = line[3:]
        shown = [percent(v) if i % 3 == 2 else number(v) for i, v in enumerate(values)]
        table.add_row(str(row.round), percent(row.sparsity, 2), *shown)
    console = console or Console(width=100)
    console.print(table)
    if not history.rows:
        return
    last = history.rows[-1].after_training or history.rows[-1].after_prune or {}
    for metric, start in zip(history.headline, dense, strict=True):
        if start and last.get(metric) is not None:
            change = last[metric] / start - 1
            console.print(f'{metric}: {last[metric]:.4g}, {100 * change:+.1f} % against dense')


def plot_history(history: 'History', path: Path) -> Path | None:
    """Each headline metric against sparsity: after pruning, after training, dense as a line."""
    try:
        import matplotlib
    except ImportError:
        print_log('history.png left out: install matplotlib (pip install -e ".[plots]")', 'current')
        return None
    matplotlib.use('Agg', force=False)
    from matplotlib.figure import Figure

    names = list(history.headline)
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(5.4 * columns, 3.8 * lines + 0.2), layout='constrained')
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis, name in zip(axes, names, strict=False):
        plot_metric(axis, history, name)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')
    return path


def plot_metric(axis, history: 'History', name: str) -> None:
    """One metric in all rounds."""
    for key, label, colour in (
        ('after_prune', 'after pruning', '#c05621'),
        ('after_training', 'after training', '#2f855a'),
    ):
        found = [(row.sparsity, (getattr(row, key) or {}).get(name)) for row in history.rows]
        points = [(100 * x, y) for x, y in found if y is not None]
        if points:
            xs, ys = zip(*points, strict=True)
            axis.plot(xs, ys, color=colour, marker='o', markersize=4, linewidth=1.4, label=label)
    dense = (history.dense or {}).get(name)
    measured = [
        v for row in history.rows for v in (row.after_prune or {}, row.after_training or {})
    ]
    values = [v[name] for v in measured if v.get(name) is not None]
    if dense is not None:
        axis.axhline(
            dense, color='#1a202c', linewidth=1, linestyle='--', label=f'dense: {dense:.4g}'
        )
    if dense and values and min(values) > 0 and max(values) > 20 * dense:
        axis.set_yscale('log')
    better = {'max': 'higher', 'min': 'lower'}[history.headline[name]]
    axis.set_title(f'{name} ({better} is better)', loc='left', fontsize=9)
    axis.set_xlabel('sparsity (%)')
    axis.grid(color='#edf2f7')
    axis.legend(frameon=False, fontsize=8)
    axis.spines[['top', 'right']].set_visible(False)
