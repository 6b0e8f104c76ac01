"""Sensitivity as a heat map: modules by ratios, one panel for each headline metric."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from mmengine.logging import print_log

from ...common.fileio import atomic_write
from .digits import number

#: Least change, as a share of the dense value, that gets the full colour.
LEAST_SCALE = 0.05
#: Inches.
ROW_HEIGHT, CELL_WIDTH, PANEL_WIDTH, PANEL_GAP, LETTER = 0.2, 0.52, 1.4, 0.22, 0.064
GREY, BLANK = '#4a5568', '#d5dae0'


@dataclass
class Line:
    """One line of the picture: a module, or the heading of a block of them.

    Attributes:
        label: What stands beside it.
        cells: The module's rows of the report, one per ratio; none for a heading.
    """

    label: str
    cells: list[dict] = field(default_factory=list)


def plot_sensitivity(report: dict, path: Path) -> Path | None:
    """Draw the heat map.

    Red is worse and blue is better than dense. In every panel the deepest colour is the largest
    change there, at least 5 and at most 100 per cent of the dense value; numbers are changes in the
    metric's own unit. Grey: nothing could go, or the metric has no value.

    Args:
        report: As in ``sensitivity.json``.
        path: The PNG file.

    Returns:
        ``path``; None without matplotlib, which is logged.
    """
    try:
        import matplotlib
    except ImportError:
        print_log('heat map left out: install matplotlib (pip install -e ".[plots]")', 'current')
        return None
    matplotlib.use('Agg', force=False)
    from matplotlib.figure import Figure

    lines, ratios = lines_of(report['rows']), report['asked']['ratios']
    names = list(report['headline'])
    left = 0.3 + LETTER * max(len(line.label) for line in lines)
    width = max(CELL_WIDTH * len(ratios), PANEL_WIDTH)
    below, above = 1.1, 0.75
    size = (left + len(names) * (width + PANEL_GAP), below + above + ROW_HEIGHT * len(lines))
    figure = Figure(figsize=size)
    for place, name in enumerate(names):
        corner = left + place * (width + PANEL_GAP)
        box = (corner / size[0], below / size[1], width / size[0], 1 - (below + above) / size[1])
        axis = figure.add_axes(box)
        image = panel(axis, lines, ratios, report, name)
        box = (corner / size[0], 0.48 / size[1], width / size[0], 0.09 / size[1])
        scale(figure, figure.add_axes(box), image, report['headline'][name])
        if place == 0:
            label_lines(axis, lines)
    note = 'change against dense; red: worse, blue: better\ngrey: nothing to remove, or no value'
    figure.text(0.1 / size[0], 0.06 / size[1], note, fontsize=6.5, color=GREY)
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')
    return path


def lines_of(rows: Sequence[dict]) -> list[Line]:
    """The picture's lines: modules of one list stand under its name, others by themselves."""
    lines = []
    modules = [
        list(cells) for _, cells in groupby(rows, key=lambda row: (row['module'], row['kind']))
    ]
    for block, members in groupby(modules, key=lambda cells: split(cells[0]['module'])[0]):
        entries = list(members)
        if block and len(entries) > 1:
            lines.append(Line(block))
            lines += [
                Line(f'{split(cells[0]["module"])[1]}  {cells[0]["kind"]}', cells)
                for cells in entries
            ]
        else:
            lines += [Line(f'{cells[0]["module"]}  {cells[0]["kind"]}', cells) for cells in entries]
    return lines


def split(name: str) -> tuple[str, str]:
    """A module's name before and from its first number on: ``('blocks', '3.attn')``."""
    parts = name.split('.')
    at = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return '.'.join(parts[:at]), '.'.join(parts[at:])


def panel(axis, lines: Sequence[Line], ratios: Sequence[float], report: dict, name: str):
    """One metric: a cell for each module and ratio."""
    import numpy as np
    from matplotlib.colors import Normalize

    dense = report['dense']['metrics'][name]
    worse = -1 if report['headline'][name] == 'max' else 1
    changes = np.full((len(lines), len(ratios)), np.nan)
    for y, line in enumerate(lines):
        for row in line.cells:
            if name in (row['change'] or {}):
                changes[y, ratios.index(row['ratio'])] = row['change'][name]
    reach = np.nanmax(np.abs(changes)) if np.isfinite(changes).any() else 0.0
    if dense:
        reach = min(max(reach, LEAST_SCALE * abs(dense)), abs(dense))
    reach = float(reach) or 1e-9  # nothing changed, and nothing says what would be much
    image = axis.imshow(
        worse * changes, cmap='RdBu_r', norm=Normalize(-reach, reach), aspect='auto',
        interpolation='nearest',
    )  # fmt: skip
    for y, line in enumerate(lines):
        for x, row in enumerate(line.cells):
            shade(axis, x, y, row, changes[y, x], reach)
    prefix, _, short = name.rpartition('/')
    better = 'higher is better' if worse < 0 else 'lower is better'
    titles = [(26, prefix, 6), (14, short, 8), (4, f'dense {number(dense)}, {better}', 6)]
    for height, text, fontsize in titles:
        axis.annotate(
            text, (0.5, 1), (0, height), xycoords='axes fraction', textcoords='offset points',
            fontsize=fontsize, fontweight='bold' if text == short else 'normal', ha='center',
            color='black' if text == short else GREY,
        )  # fmt: skip
    axis.set_xticks(range(len(ratios)), [f'{ratio:g}' for ratio in ratios], fontsize=7)
    axis.set_xlabel('fraction removed', fontsize=6, color=GREY, labelpad=1)
    axis.set_yticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image


def shade(axis, x: int, y: int, row: dict, change: float, reach: float) -> None:
    """The number in a cell, or grey where there is none."""
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor='white', linewidth=1))
    if change != change:
        fill = Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, color=BLANK, linewidth=0)
        axis.add_patch(fill)
        why = 'whole' if row['kept'] == row['units'] else 'none'
        axis.text(x, y, why, fontsize=5.5, color='#718096', ha='center', va='center')
        return
    colour = 'white' if abs(change) > 0.5 * reach else '#1a202c'
    axis.text(x, y, signed(change), fontsize=6, color=colour, ha='center', va='center')


def signed(change: float) -> str:
    """A change in at most six characters: ``+0.021``, ``-3.2``, ``0``."""
    if change == 0:
        return '0'
    if 1e-3 <= abs(change) < 10:
        return f'{change:+.3f}' if abs(change) < 1 else f'{change:+.2f}'
    return f'{change:+.0f}' if 10 <= abs(change) < 1e5 else f'{change:+.0e}'.replace('e-0', 'e-')


def label_lines(axis, lines: Sequence[Line]) -> None:
    """Names beside the first panel; those of blocks bold."""
    axis.set_yticks(range(len(lines)), [line.label for line in lines], fontsize=7)
    for tick, line in zip(axis.get_yticklabels(), lines, strict=True):
        if not line.cells:
            tick.set_fontweight('bold')


def scale(figure, axis, image, better: str) -> None:
    """The colour bar below a panel, in the metric's unit."""
    bar = figure.colorbar(image, cax=axis, orientation='horizontal')
    low, high = image.norm.vmin, image.norm.vmax
    sign = -1 if better == 'max' else 1
    labels = [signed(sign * low), '0', signed(sign * high)] if high > 1e-9 else ['', '0', '']
    bar.set_ticks([low, 0, high], labels=labels)
    bar.ax.tick_params(labelsize=6, length=2)
    for tick, side in zip(bar.ax.get_xticklabels(), ('left', 'center', 'right'), strict=True):
        tick.set_horizontalalignment(side)
    bar.outline.set_visible(False)
