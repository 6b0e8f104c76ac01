"""Pruning states: a table, accuracy against what is kept, what each layer keeps, the soft pruning."""

import json
from collections.abc import Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ...common.fileio import atomic_write
from ...common.json_csv import write_csv, write_json

#: Kinds of units, one line each.
COLOURS = ('#2b6cb0', '#c05621', '#2f855a', '#805ad5', '#718096')


def write_tickets(rows: Sequence[dict[str, Any]], headline: Sequence[str], folder: Path) -> None:
    """Write ``states.json``, ``states.csv`` and, with matplotlib, the pictures.

    Args:
        rows: One per pruning state, as :class:`IterativePruneLoop` makes them.
        headline: Metrics that are drawn.
        folder: Where.
    """
    write_json(list(rows), folder / 'states.json')
    kinds = list(rows[0]['kept'])
    names = list(rows[0]['after_removal'])
    header = ['state', 'ratio', *(f'{kind} kept' for kind in kinds), 'params', 'flops']
    header += [f'{name}{when}' for name in names for when in (' before removal', '')]
    lines = []
    for row in rows:
        line = [row['state'], row['ratio'], *(row['kept'][kind][0] for kind in kinds)]
        line += [row['params'], row['flops']]
        for name in names:
            line += [row[stage].get(name) for stage in ('before_removal', 'after_removal')]
        lines.append(line)
    write_csv(header, lines, folder / 'states.csv')
    try:
        import matplotlib
    except ImportError:
        print_log('plots left out: install matplotlib (pip install -e ".[plots]")', 'current')
        return
    matplotlib.use('Agg', force=False)
    if headline:
        plot_metrics(rows, headline, folder / 'states.png')
    plot_layers(rows, folder / 'kept_per_layer.png')
    scalars = read_scalars(folder)
    if scalars:
        plot_penalty(scalars, folder / 'penalty.png')


def save(figure, path: Path) -> None:
    """Write a figure as a whole file."""
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')


def plot_metrics(rows: Sequence[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    """Each metric against the share of units that is kept, one line per kind."""
    from matplotlib.figure import Figure

    columns = min(len(names), 3)
    lines = ceil(len(names) / columns)
    figure = Figure(figsize=(1 + 5.4 * columns, 4.2 * lines), layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, name in zip(axes, names, strict=False):
        values = [row['after_removal'].get(name) for row in rows]
        for kind, colour in zip(rows[0]['kept'], cycle(COLOURS)):
            shares = [100 * row['kept'][kind][0] / row['kept'][kind][1] for row in rows]
            axis.plot(shares, values, color=colour, marker='o', markersize=4, label=f'{kind} kept')
        axis.axhline(values[0], color='#1a202c', linewidth=1, linestyle='--', label='dense')
        axis.invert_xaxis()
        axis.set_xlabel('kept (%)')
        axis.set_title(f'{name}, after removal', loc='left', fontsize=9)
        axis.grid(color='#edf2f7')
        axis.spines[['top', 'right']].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    for axis in axes[len(names) :]:
        axis.remove()
    save(figure, path)


def plot_layers(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """What every group keeps in every state, as a heat map with the numbers in it."""
    from matplotlib.figure import Figure

    kinds = list(rows[0]['kept'])
    members = {
        kind: [name for name, (own, *_) in rows[0]['groups'].items() if own == kind]
        for kind in kinds
    }
    width = 1.2 + 0.055 * max(map(len, rows[0]['groups'])) + 0.55 * len(rows)
    height = 1.0 + 0.28 * sum(len(names) + 2 for names in members.values())
    figure = Figure(figsize=(width, height), layout='constrained')
    heights = [len(members[kind]) for kind in kinds]
    axes = figure.subplots(len(kinds), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, kind in zip(axes, kinds, strict=True):
        names = members[kind]
        shares = [[row['groups'][n][1] / row['groups'][n][2] for row in rows] for n in names]
        axis.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
        for y, name in enumerate(names):
            for x, row in enumerate(rows):
                colour = 'white' if shares[y][x] > 0.6 else '#1a202c'
                axis.text(
                    x, y, f'{row["groups"][name][1]:,}', ha='center', va='center', fontsize=6,
                    color=colour,
                )  # fmt: skip
        axis.set_yticks(range(len(names)), names, fontsize=6)
        axis.set_xticks(range(len(rows)), [row['state'] for row in rows], fontsize=7)
        axis.set_title(f'{kind}: units kept', loc='left', fontsize=9)
    axes[-1].set_xlabel('pruning state', fontsize=8)
    save(figure, path)


def read_scalars(folder: Path) -> list[dict[str, float]]:
    """Logged lines that tell of a penalty: step, factor and norm of what is to leave."""
    found: dict[int, dict[str, float]] = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a line that was being written when the run was killed
            if 'penalty' in entry and 'leaving_norm' in entry and 'step' in entry:
                found[entry['step']] = entry
    return [found[step] for step in sorted(found)]


def plot_penalty(scalars: Sequence[dict[str, float]], path: Path) -> None:
    """The penalty's factor, and the norm of the leaving units, over the iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.8), layout='constrained')
    axis = figure.subplots()
    steps = [entry['step'] for entry in scalars]
    axis.plot(steps, [entry['leaving_norm'] for entry in scalars], color='#2b6cb0')
    axis.set_ylabel('norm of the leaving units', color='#2b6cb0')
    axis.set_ylim(bottom=0)
    axis.set_xlabel('iteration')
    other = axis.twinx()
    other.plot(steps, [entry['penalty'] for entry in scalars], color='#c05621', linewidth=1)
    other.set_ylabel('strength of the penalty', color='#c05621')
    other.set_ylim(bottom=0)
    for one in (axis, other):
        one.spines['top'].set_visible(False)
    save(figure, path)
