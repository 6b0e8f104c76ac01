"""The report, as a person reads it in a terminal."""

from rich.console import Console
from rich.table import Table

from .tables import kind_totals

#: In the order of the table's columns; a report has some of them.
STAGES = ('dense', 'pruned', 'masked', 'recovered')


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


def print_report(report: dict, console: Console | None = None) -> None:
    """Print what ``report.json`` says: asked against achieved, dense against pruned."""
    console = console or Console(width=100)
    asked = report['asked']
    title = f'asked: {asked["ratio"]:.4g} of {asked["budget"]} removed'
    table = Table(title=title, title_justify='left')
    stages = [s for s in STAGES if report.get(s)]
    for column in ('', *stages, 'removed'):
        table.add_column(column, justify='left' if not column else 'right')
    rows = [('parameters', 'params', ''), ('FLOPs', 'flops', ''), ('latency', 'latency_ms', ' ms')]
    for label, key, unit in rows:
        values = [report[stage].get(key) for stage in stages]
        removed = share(report['dense'].get(key), report['pruned'].get(key))
        table.add_row(label, *(number(v, unit) for v in values), removed)
    zeros = report['achieved'].get('zeros')
    if zeros:
        blanks = [''] * (len(stages) - 1)
        table.add_row('zeros in *_pruned.pth', *blanks, '', f'{100 * zeros:.2f} %')
    for kind, (size, kept) in kind_totals(report['groups']).items():
        values = [number(kept if is_slim(report, stage) else size) for stage in stages]
        table.add_row(f'{kind} units', *values, share(size, kept))
    if report.get('removed_layers'):
        blanks = [''] * len(stages)
        table.add_row('whole layers', *blanks, f'{len(report["removed_layers"])}')
    for metric in report.get('headline') or {}:
        values = [(report[stage].get('metrics') or {}).get(metric) for stage in stages]
        table.add_row(metric, *(number(v) for v in values), '')
    console.print(table)
