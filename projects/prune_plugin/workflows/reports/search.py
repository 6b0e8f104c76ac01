"""The trials of a search for a ratio: CSV, JSON, a picture, a table for the terminal and for the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table

from ...common.fileio import atomic_write
from ...common.json_csv import write_csv, write_json
from . import markup
from .colours import GREEN, GRID, TEXT, VERMILION
from .digits import number
from .rounds import percent
from .terminal_width import table_console

COLUMNS = ('trial', 'ratio', 'removed', 'params', 'flops', 'value', 'drop', 'holds')
SHOWN = ('trial', 'ratio', 'removed', 'parameters', 'metric', 'worse by', '')
#: A trial's mark in the picture, by whether it holds.
MARKS = {True: (GREEN, 'o', 'holds'), False: (VERMILION, 'x', 'too much')}


def write_search(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``search.csv`` and ``search.json``: the trials in their order, with all metrics.

    Args:
        report: As in ``search.json``.
        folder: Where to.
    """
    rows = report['rows']
    names = dict.fromkeys(name for row in rows for name in row['metrics'])
    lines = (
        [*(row[key] for key in COLUMNS), *(row['metrics'].get(name) for name in names)]
        for row in rows
    )
    write_csv((*COLUMNS, *names), lines, folder / 'search.csv')
    write_json(report, folder / 'search.json')


def goal(report: Mapping[str, Any]) -> str:
    """What was looked for, in a few words."""
    asked = report['asked']
    drop = percent(asked['max_drop'], 3) if asked['relative'] else number(asked['max_drop'])
    than = f'at {"least" if report["better"] == "max" else "most"} {report["limit"]:.6g}'
    return f'{report["metric"]} at most {drop} worse than dense, {than}'


def outcome(report: Mapping[str, Any]) -> str:
    """What was found, in a few words."""
    found = f'{report["ratio"]:.4g} of {report["asked"]["of"]} removed'
    higher = report['too_much']
    return f'{found} holds' + ('' if higher is None else f'; {higher:.4g} is too much')


def lines(report: Mapping[str, Any]) -> list[list[str]]:
    """One line of cells, as in ``SHOWN``, for each trial, by ascending ratio; dense first."""
    dense, name = report['dense'], report['metric']
    table = [['dense', '', '', number(dense['params']), f'{dense["metrics"][name]:.6g}', '', '']]
    for row in sorted(report['rows'], key=lambda row: row['ratio']):
        known = row['value'] is not None
        verdict = 'taken' if row['ratio'] == report['ratio'] else MARKS[row['holds']][2]
        table.append(
            [
                str(row['trial']),
                f'{row["ratio"]:.4g}',
                percent(row['removed'], 2),
                number(row['params']),
                f'{row["value"]:.6g}' if known else '-',
                f'{row["drop"]:.4g}' if known else '-',
                verdict,
            ]
        )
    return table


def print_search(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print one line per trial."""
    table = Table(title=f'search: {goal(report)}', title_justify='left')
    for column in SHOWN:
        table.add_column(column, justify='right' if column else 'left')
    for cells in lines(report):
        table.add_row(*cells)
    console = console or table_console()
    console.print(table)
    console.print(outcome(report), highlight=False)


def search_section(report: Mapping[str, Any]) -> list[str]:
    """The same as parts of a page."""
    asked = report['asked']
    seen = 'all' if asked['samples'] is None else f'the first {asked["samples"]}'
    said = [
        f'Looked for: {goal(report)}; found: {outcome(report)}.',
        f'Trials were evaluated as pruned, without training, on {seen} {asked["split"]} samples. The '
        'metric is taken to get worse as the ratio grows: a larger ratio that was not tried may hold too.',
    ]
    after = report.get('on_test_data')
    if after:
        verdict = 'within' if after['holds'] else 'not within'
        said.append(f'On all test data it is worse by {after["drop"]:.4g}, {verdict} max_drop.')
    table = markup.table('Trials', list(SHOWN), lines(report))
    return [table, *(markup.text(text, 'note') for text in said)]


def plot_search(report: Mapping[str, Any], path: Path) -> Path | None:
    """The metric against the fraction removed, with the dense value and the limit as lines."""
    try:
        import matplotlib
    except ImportError:
        print_log('search.png left out: install matplotlib (pip install -e ".[plots]")', 'current')
        return None
    matplotlib.use('Agg', force=False)
    from matplotlib.figure import Figure

    name, rows = report['metric'], [r for r in report['rows'] if r['value'] is not None]
    dense = report['dense']['metrics'][name]
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axis = figure.subplots()
    drawn = sorted([(0.0, dense), *((100 * row['removed'], row['value']) for row in rows)])
    axis.plot(*zip(*drawn, strict=True), color='#a0aec0', linewidth=1, zorder=1)
    for holds, (colour, marker, label) in MARKS.items():
        points = [(100 * r['removed'], r['value'], r['trial']) for r in rows if r['holds'] is holds]
        if points:
            xs, ys, trials = zip(*points, strict=True)
            axis.scatter(xs, ys, s=40, color=colour, marker=marker, zorder=2, label=label)
            for x, y, trial in points:
                axis.annotate(
                    str(trial), (x, y), xytext=(5, 5), textcoords='offset points', fontsize=7
                )
    taken = next((row for row in rows if row['ratio'] == report['ratio']), None)
    if taken:
        axis.scatter(
            [100 * taken['removed']], [taken['value']], s=160, facecolors='none',
            edgecolors=TEXT, zorder=3, label=f'taken: {taken["value"]:.4g}',
        )  # fmt: skip
    for value, style, label in ((dense, '--', 'dense'), (report['limit'], ':', 'limit')):
        axis.axhline(value, color=TEXT, linewidth=1, linestyle=style, label=f'{label}: {value:.4g}')
    values = [y for _, y in drawn]
    if min(values) > 0 and max(values) > 20 * dense:
        axis.set_yscale('log')
    better = {'max': 'higher', 'min': 'lower'}[report['better']]
    axis.set_title(f'{name} ({better} is better); numbers: trials', loc='left', fontsize=9)
    axis.set_xlabel(f'{report["asked"]["of"]} removed (%)')
    axis.grid(color=GRID)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[['top', 'right']].set_visible(False)
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')
    return path
