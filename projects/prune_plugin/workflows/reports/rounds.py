"""Rounds of pruning and training: a table for the terminal, JSON, CSV, pictures."""

import json
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table

from ...common.fileio import atomic_write
from ...common.json_csv import write_csv, write_json
from ..round_record import Record, Row
from .colours import BLUE, GREEN, GRID, PURPLE, TEXT, VERMILION
from .digits import number
from .terminal_width import table_console

#: Moments of a round at which metrics are drawn: attribute, label, colour.
MOMENTS = (
    ('after_prune', 'after pruning', BLUE),
    ('before_removal', 'before removal', PURPLE),
    ('after_training', 'after training', GREEN),
)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in percent; a dash for None."""
    return '-' if value is None else f'{100 * value:.{digits}f} %'


def of_metric(row: Row, moment: str, metric: str) -> float | None:
    """A metric at a moment of a round."""
    return (getattr(row, moment) or {}).get(metric)


def cells(record: Record) -> list[list[float | int | None]]:
    """One row per round: number, ratio, sparsity, then three values for each headline metric."""
    rows = []
    for row in record.rows:
        line: list[float | int | None] = [row.round, row.ratio, row.sparsity]
        for metric in record.headline:
            line += [of_metric(row, moment, metric) for moment in ('after_prune', 'after_training')]
            line.append(record.recovered(row, metric))
        rows.append(line)
    return rows


def write_history(record: Record, folder: Path) -> None:
    """Write ``history.csv`` and, with matplotlib and metrics, ``history.png``."""
    header = ['iteration', 'ratio', 'sparsity']
    for metric in record.headline:
        header += [f'{metric} {when}' for when in ('after pruning', 'after training', 'recovery')]
    write_csv(header, cells(record), folder / 'history.csv')
    if record.headline and record.rows:
        draw(folder / 'history.png', plot_metrics, record)


def write_states(record: Record, folder: Path) -> None:
    """Write ``states.json``, ``states.csv`` and, with matplotlib, the pictures.

    Args:
        record: Of an :class:`IterativePruneLoop`, whose rounds are called states.
        folder: Where.
    """
    rows = [row for row in record.rows if row.complete or row is record.rows[-1]]
    write_json([as_state(row) for row in rows], folder / 'states.json')
    kinds, names = list(rows[0].kept), list(rows[0].after_training or {})
    header = ['state', 'ratio', *(f'{kind} kept' for kind in kinds), 'params', 'flops']
    header += [f'{name}{when}' for name in names for when in (' before removal', '')]
    lines = [
        [row.round, row.ratio, *(row.kept[kind][0] for kind in kinds), row.params, row.flops]
        + [of_metric(row, m, name) for name in names for m in ('before_removal', 'after_training')]
        for row in rows
    ]
    write_csv(header, lines, folder / 'states.csv')
    if record.headline:
        draw(folder / 'states.png', plot_metrics, record)
    draw(folder / 'kept_per_layer.png', plot_layers, rows)
    if scalars := read_scalars(folder):
        draw(folder / 'penalty.png', plot_penalty, scalars)


def as_state(row: Row) -> dict[str, Any]:
    """A row of ``states.json``."""
    return dict(
        state=row.round,
        ratio=row.ratio,
        kept=row.kept,
        groups=row.groups,
        params=row.params,
        flops=row.flops,
        before_removal=row.before_removal,
        after_removal=row.after_training,
    )


def print_history(record: Record, console: Console | None = None) -> None:
    """Print one line per round, and how the last compares with the dense model."""
    title = f'pruning in rounds: {len(record.rows)} of {record.planned} done'
    table = Table(title=title, title_justify='left')
    table.add_column('iteration', justify='right')
    table.add_column('sparsity', justify='right')
    for metric in record.headline:
        name = metric.rpartition('/')[2]
        for column in (f'{name} after pruning', 'after training', 'recovery'):
            table.add_column(column, justify='right')
    dense = [(record.dense or {}).get(metric) for metric in record.headline]
    table.add_row('dense', '', *(text for value in dense for text in (number(value), '', '')))
    for row, line in zip(record.rows, cells(record), strict=True):
        values = line[3:]
        texts = [percent(v) if i % 3 == 2 else number(v) for i, v in enumerate(values)]
        table.add_row(str(row.round), percent(row.sparsity, 2), *texts)
    console = console or table_console()
    console.print(table)
    if not record.rows:
        return
    last = record.rows[-1].after_training or record.rows[-1].after_prune or {}
    for metric, start in zip(record.headline, dense, strict=True):
        if start and last.get(metric) is not None:
            change = last[metric] / start - 1
            console.print(f'{metric}: {last[metric]:.4g}, {100 * change:+.1f} % against dense')


def draw(path: Path, plot: Callable[..., Any], *args: Any) -> None:
    """Write a figure, if matplotlib is there.

    Args:
        path: The PNG file.
        plot: Gives the figure.
        args: Its arguments.
    """
    try:
        import matplotlib
    except ImportError:
        print_log(
            f'{path.name} left out: install matplotlib (pip install -e ".[plots]")', 'current'
        )
        return
    matplotlib.use('Agg', force=False)
    with atomic_write(path, 'wb') as file:
        plot(*args).savefig(file, dpi=130, format='png')


def plot_metrics(record: Record):
    """Each headline metric against sparsity, at all moments, dense as a line."""
    from matplotlib.figure import Figure

    names = list(record.headline)
    columns = min(len(names), 3)
    lines = ceil(len(names) / columns)
    figure = Figure(figsize=(5.4 * columns, 3.8 * lines + 0.2), layout='constrained')
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis, name in zip(axes, names, strict=False):
        plot_metric(axis, record, name)
    for axis in axes[len(names) :]:
        axis.remove()
    return figure


def plot_metric(axis, record: Record, name: str) -> None:
    """One metric in all rounds."""
    values: list[float] = []
    for moment, label, colour in MOMENTS:
        points = [(100 * row.sparsity, of_metric(row, moment, name)) for row in record.rows]
        points = [(x, y) for x, y in points if y is not None]
        if points:
            xs, ys = zip(*points, strict=True)
            values += ys
            axis.plot(xs, ys, color=colour, marker='o', markersize=4, linewidth=1.4, label=label)
    dense = (record.dense or {}).get(name)
    if dense is None and record.rows and record.rows[0].round == 0:
        dense = of_metric(record.rows[0], 'after_training', name)
    if dense is not None:
        axis.axhline(dense, color=TEXT, linewidth=1, linestyle='--', label=f'dense: {dense:.4g}')
    if dense and values and min(values) > 0 and max(values) > 20 * dense:
        axis.set_yscale('log')
    better = {'max': 'higher', 'min': 'lower'}[record.headline[name]]
    axis.set_title(f'{name} ({better} is better)', loc='left', fontsize=9)
    axis.set_xlabel('sparsity (%)')
    axis.grid(color=GRID)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[['top', 'right']].set_visible(False)


def plot_layers(rows: Sequence[Row]):
    """What every group keeps in every state, as a heat map with the numbers in it."""
    from matplotlib.figure import Figure

    kinds = list(rows[0].kept)
    members = {
        kind: [name for name, (k, *_) in rows[0].groups.items() if k == kind] for kind in kinds
    }
    width = 1.2 + 0.055 * max(map(len, rows[0].groups)) + 0.55 * len(rows)
    height = 1.0 + 0.28 * sum(len(names) + 2 for names in members.values())
    figure = Figure(figsize=(width, height), layout='constrained')
    heights = [len(members[kind]) for kind in kinds]
    axes = figure.subplots(len(kinds), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, kind in zip(axes, kinds, strict=True):
        names = members[kind]
        shares = [[row.groups[n][1] / row.groups[n][2] for row in rows] for n in names]
        axis.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
        for y, name in enumerate(names):
            for x, row in enumerate(rows):
                colour = 'white' if shares[y][x] > 0.6 else TEXT
                axis.text(
                    x, y, f'{row.groups[name][1]:,}', ha='center', va='center', fontsize=6,
                    color=colour,
                )  # fmt: skip
        axis.set_yticks(range(len(names)), names, fontsize=6)
        axis.set_xticks(range(len(rows)), [row.round for row in rows], fontsize=7)
        axis.set_title(f'{kind}: units kept', loc='left', fontsize=9)
    axes[-1].set_xlabel('pruning state', fontsize=8)
    return figure


def read_scalars(folder: Path) -> list[dict[str, float]]:
    """Logged lines that tell of a penalty: step, factor and norm of what is scheduled for removal."""
    lines_by_step: dict[int, dict[str, float]] = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a line that was being written when the run was killed
            if 'penalty' in entry and 'leaving_norm' in entry and 'step' in entry:
                lines_by_step[entry['step']] = entry
    return [lines_by_step[step] for step in sorted(lines_by_step)]


def plot_penalty(scalars: Sequence[dict[str, float]]):
    """The penalty's factor, and the norm of the units scheduled for removal, over the iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.8), layout='constrained')
    axis = figure.subplots()
    steps = [entry['step'] for entry in scalars]
    axis.plot(steps, [entry['leaving_norm'] for entry in scalars], color=BLUE)
    axis.set_ylabel('norm of the units scheduled for removal', color=BLUE)
    axis.set_ylim(bottom=0)
    axis.set_xlabel('iteration')
    other = axis.twinx()
    other.plot(steps, [entry['penalty'] for entry in scalars], color=VERMILION, linewidth=1)
    other.set_ylabel('strength of the penalty', color=VERMILION)
    other.set_ylim(bottom=0)
    for one in (axis, other):
        one.spines['top'].set_visible(False)
    return figure
