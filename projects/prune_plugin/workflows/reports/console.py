"""The report, as a person reads it in a terminal."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from .advice import advice
from .tables import kind_totals

#: In the order of the table's columns; a report has some of them.
STAGES = ('dense', 'pruned', 'masked', 'recovered')
#: What is counted or measured of every stage: label, key, and unit.
QUANTITIES = (
    ('parameters', 'params', ''),
    ('FLOPs', 'flops', ''),
    ('latency', 'latency_ms', ' ms'),
)


def is_slim(report: dict, stage: str) -> bool:
    """Whether a stage's model has lost units."""
    trained = report.get('recovered') or {}
    return stage == 'pruned' or (stage == 'recovered' and trained.get('trained') != 'unstructured')


def number(value: float | None, unit: str = '') -> str:
    """A number with thousands marks; a dash for what wasn't measured."""
    if value is None:
        return '-'
    shown = f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
    return f'{shown}{unit}'


def share(before: float | None, after: float | None) -> str:
    """The fraction removed, in percent."""
    return '-' if not before or after is None else f'{100 * (1 - after / before):.2f} %'


def print_groups(report: dict, console: Console | None = None) -> None:
    """Print one line per unit group: what would be left of it."""
    table = Table(title='unit groups', title_justify='left')
    for column in ('group', 'kind', 'units', 'kept', 'removed'):
        table.add_column(column, justify='left' if column in ('group', 'kind') else 'right')
    for group in report['groups']:
        size, kept = group['size'], group['kept']
        table.add_row(group['name'], group['kind'], f'{size:,}', f'{kept:,}', share(size, kept))
    (console or Console(width=100)).print(table)


def print_kinds(report: dict, console: Console | None = None) -> None:
    """Print one line per kind of unit: how many groups, and how much their widths would vary."""
    table = Table(title=f'unit groups; scores: {report["scores"]}', title_justify='left')
    for column in ('kind', 'groups', 'units', 'kept', 'removed', 'kept by one group'):
        table.add_column(column, justify='left' if column == 'kind' else 'right')
    for kind, (size, kept) in kind_totals(report['groups']).items():
        widths = [group['kept'] for group in report['groups'] if group['kind'] == kind]
        counts = (f'{count:,}' for count in (len(widths), size, kept))
        spread = f'{min(widths):,} to {max(widths):,}'
        table.add_row(kind, *counts, share(size, kept), spread)
    (console or Console(width=100)).print(table)


def print_memory(report: dict, console: Console | None = None) -> None:
    """Print what each rank would hold in training: GiB, dense and pruned side by side."""
    table = Table(title='GiB on each rank in training, dense / pruned', title_justify='left')
    parts = ('weights', 'gradients', 'adamw', 'total')
    for column in ('', 'ranks', *parts):
        table.add_column(column, justify='left' if not column else 'right')
    rows = report['memory']
    for dense, pruned in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True):
        figures = (f'{dense[part]:.3g} / {pruned[part]:.3g}' for part in parts)
        if dense['strategy'] != 'DDP' or dense['ranks'] == 1:  # under DDP every rank holds all
            ranks = 'any' if dense['strategy'] == 'DDP' else str(dense['ranks'])
            table.add_row(dense['strategy'], ranks, *figures)
    (console or Console(width=100)).print(table)


def stages_of(report: dict) -> list[str]:
    """The stages that a report has, dense first."""
    return [stage for stage in STAGES if report.get(stage)]


class Row(NamedTuple):
    """One line of the table of a report.

    Attributes:
        label: What is counted or measured.
        values: One for each of the report's stages, None where it wasn't measured; or none at all.
        removed: The fraction removed as text; empty for metrics.
        unit: Of the values.
        better: Of a metric, which direction is better; None for the others.
    """

    label: str
    values: Sequence[float | None]
    removed: str = ''
    unit: str = ''
    better: str | None = None


def summary(report: dict) -> list[Row]:
    """Asked against achieved, line by line: sizes, latency, zeros, units and headline metrics."""
    stages = stages_of(report)
    rows = []
    for label, key, unit in QUANTITIES:
        values = [report[stage].get(key) for stage in stages]
        removed = share(report['dense'].get(key), report['pruned'].get(key))
        rows.append(Row(label, values, removed, unit))
    zeros = report['achieved'].get('zeros')
    if zeros:
        rows.append(Row('zeros in *_pruned.pth', (), f'{100 * zeros:.2f} %'))
    for kind, (size, kept) in kind_totals(report['groups']).items():
        values = [kept if is_slim(report, stage) else size for stage in stages]
        rows.append(Row(f'{kind} units', values, share(size, kept)))
    if report.get('removed_layers'):
        rows.append(Row('whole layers', (), f'{len(report["removed_layers"])}'))
    for metric, better in (report.get('headline') or {}).items():
        values = [(report[stage].get('metrics') or {}).get(metric) for stage in stages]
        rows.append(Row(metric, values, better=better))
    return rows


def print_report(report: dict, console: Console | None = None) -> None:
    """Print what ``report.json`` says: asked against achieved, dense against pruned."""
    console = console or Console(width=100)
    asked = report['asked']
    title = f'asked: {asked["ratio"]:.4g} of {asked["budget"]} removed'
    table = Table(title=title, title_justify='left')
    stages = stages_of(report)
    for column in ('', *stages, 'removed'):
        table.add_column(column, justify='left' if not column else 'right')
    for row in summary(report):
        values = [number(value, row.unit) for value in row.values] or [''] * len(stages)
        table.add_row(row.label, *values, row.removed)
    console.print(table)
    said = advice(report)
    if said:
        console.print(said, highlight=False)
