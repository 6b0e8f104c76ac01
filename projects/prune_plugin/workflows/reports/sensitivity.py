"""Sensitivity as files and in the terminal; the heat map is in ``heatmap.py``."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...common.json_csv import write_csv, write_json
from .digits import number
from .terminal_width import table_console

COLUMNS = (
    'module',
    'kind',
    'layer_idx',
    'ratio',
    'units',
    'kept',
    'params_removed',
    'flops_removed',
)
LISTED = 10


def write_sensitivity(report: dict[str, Any], folder: Path) -> None:
    """Write ``sensitivity.csv`` and ``sensitivity.json``.

    Args:
        report: As in ``sensitivity.json``. A row without metrics has empty cells for them.
        folder: Where to.
    """
    rows = report['rows']
    names = dict.fromkeys(report['dense']['metrics'])
    for row in rows:
        names.update(dict.fromkeys(row['metrics'] or ()))
    write_csv(
        (*COLUMNS, *names),
        (
            [*(row[key] for key in COLUMNS), *((row['metrics'] or {}).get(name) for name in names)]
            for row in rows
        ),
        folder / 'sensitivity.csv',
    )
    write_json(report, folder / 'sensitivity.json')


def format_row(row: dict, report: dict) -> str:
    """The row just evaluated, in one line."""
    text = f'{row["module"]} {row["kind"]} {row["kept"]}/{row["units"]}: '
    return text + (', '.join(changes(row, report)) or 'no change')


def changes(row: dict, report: dict) -> list[str]:
    """``name dense -> value`` of those headline metrics of a row that changed, as far as is shown."""
    dense = report['dense']['metrics']
    pairs = {name: (number(dense[name]), number(row['metrics'][name])) for name in row['change']}
    return [f'{name} {old} -> {new}' for name, (old, new) in pairs.items() if old != new]


def ranking(report: dict) -> list[dict]:
    """One row for each module that can be pruned, at its largest ratio, the most sensitive first."""
    last: dict[tuple[str, str], dict] = {}
    for row in sorted(report['rows'], key=lambda row: row['ratio']):
        if row['sensitivity'] is not None:
            last[row['module'], row['kind']] = row
    return sorted(last.values(), key=lambda row: row['sensitivity'], reverse=True)


def worst(row: dict, report: dict) -> str:
    """``name dense -> value`` of the headline metric that got worst; empty if none did."""
    name, value = max(row['worsening'].items(), key=lambda item: item[1], default=('', 0.0))
    shown = [text for text in changes(row, report) if text.startswith(f'{name} ')]
    return shown[0] if shown and value > 0 else ''


def ranking_table(ranked: list[dict], report: dict) -> Table:
    """Both ends of the ranking."""
    ratio = max(report['asked']['ratios'])
    table = Table(title=f'sensitivity at ratio {ratio:g}', title_justify='left')
    right = ('units', 'kept', 'sensitivity')
    for column in ('', 'module', 'kind', *right, 'worst change'):
        wide = column in ('module', 'worst change')
        table.add_column(
            column, justify='right' if column in right else 'left', no_wrap=not wide,
            overflow='fold',
        )  # fmt: skip
    places = list(enumerate(ranked, 1))
    left_out = len(places) - 2 * LISTED
    for place, row in places:
        if left_out > 0 and LISTED < place <= len(places) - LISTED:
            if place == LISTED + 1:
                table.add_row('', f'... {left_out} more')
            continue
        units, kept = f'{row["units"]:,}', f'{row["kept"]:,}'
        shown = f'{row["sensitivity"]:+.3f}'.replace('-0.000', '0').replace('+0.000', '0')
        table.add_row(
            str(place), row['module'], row['kind'], units, kept, shown, worst(row, report)
        )
    return table


def print_sensitivity(report: dict, console: Console | None = None) -> None:
    """Print the ten most and the ten least sensitive modules, and what the number means."""
    console = console or table_console(120)
    ranked = ranking(report)
    if ranked:
        console.print(ranking_table(ranked, report))
    for name in ('sensitivity', 'worsening'):
        console.print(f'{name}: {report["notes"][name]}', highlight=False)
    if report['left_out']:
        names = ', '.join(report['left_out'])
        console.print(f'left out of it, being 0 in the dense model: {names}', highlight=False)
    whole = {(row['module'], row['kind']) for row in report['rows']}
    whole -= {(row['module'], row['kind']) for row in report['rows'] if row['kept'] < row['units']}
    for module, kind in sorted(whole):
        console.print(f'nothing can go at these ratios: {module} ({kind})', highlight=False)
