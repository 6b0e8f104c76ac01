"""The report, as a person reads it in a terminal."""

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from ..run_report import RunReport
from .advice import advice
from .digits import numbers
from .summary import Row, share, summary
from .terminal_width import table_console

#: Share of the parameters without units from which on the console says so.
LEAST_UNCOVERED = 0.05


def values_of(row: Row) -> list[str]:
    """A row's values, with their unit and equally many decimals."""
    return numbers(row.values, row.unit and f' {row.unit}')


def print_groups(report: RunReport, console: Console | None = None) -> None:
    """Print one line per unit group: what would be left of it."""
    table = Table(title='unit groups', title_justify='left')
    for column in ('group', 'kind', 'units', 'kept', 'removed'):
        table.add_column(column, justify='left' if column in ('group', 'kind') else 'right')
    for group in report.groups:
        size, kept = group.size, group.kept
        table.add_row(group.name, group.kind, f'{size:,}', f'{kept:,}', share(size, kept))
    (console or table_console()).print(table)


def print_kinds(report: RunReport, console: Console | None = None) -> None:
    """Print one line per kind of unit: how many groups, and how much their widths would vary."""
    table = Table(title=f'unit groups; scores: {report.scores}', title_justify='left')
    for column in ('kind', 'groups', 'units', 'kept', 'removed', 'kept by one group'):
        table.add_column(column, justify='left' if column == 'kind' else 'right')
    for kind, (size, kept) in report.kind_totals().items():
        widths = [group.kept for group in report.groups if group.kind == kind]
        counts = (f'{count:,}' for count in (len(widths), size, kept))
        spread = f'{min(widths):,} to {max(widths):,}'
        table.add_row(kind, *counts, share(size, kept), spread)
    (console or table_console()).print(table)


def print_memory(report: RunReport, console: Console | None = None) -> None:
    """Print what each rank would hold in training: GiB, dense and pruned side by side."""
    table = Table(title='GiB on each rank in training, dense / pruned', title_justify='left')
    parts = ('weights', 'gradients', 'adamw', 'total')
    for column in ('', 'ranks', *parts):
        table.add_column(column, justify='left' if not column else 'right')
    rows = report.memory or []
    for dense, pruned in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True):
        held, left = asdict(dense), asdict(pruned)
        figures = (f'{held[part]:.3g} / {left[part]:.3g}' for part in parts)
        if dense.strategy != 'DDP' or dense.ranks == 1:  # under DDP every rank holds all
            ranks = 'any' if dense.strategy == 'DDP' else str(dense.ranks)
            table.add_row(dense.strategy, ranks, *figures)
    (console or table_console()).print(table)


def print_streamed(report: RunReport, console: Console | None = None) -> None:
    """Print what a run block by block takes, in GB (10^9 bytes); nothing of another run."""
    run = report.streamed
    if run is None:
        return
    table = Table(title=f'streamed, {run.blocks} blocks, GB', title_justify='left')
    figures = {
        'memory, estimated': run.estimated_memory,
        'memory, measured': run.peak_memory,
        'weights read': run.bytes_read,
        'weights written': run.bytes_written,
        'files, estimated': run.disk,
    }
    for name, value in figures.items():
        if value is not None:
            table.add_column(name, justify='right')
    table.add_row(*(f'{value / 1e9:.3g}' for value in figures.values() if value is not None))
    (console or table_console()).print(table)


def print_report(report: RunReport, console: Console | None = None) -> None:
    """Print what ``report.json`` says: asked against achieved, dense against pruned."""
    console = console or table_console()
    asked = report.asked
    ratios = asked.get('ratios') or {asked['budget']: asked['ratio']}
    title = ', '.join(f'{value:.4g} of {what}' for what, value in ratios.items())
    title = f'asked: {title}{" units" if "ratios" in asked else ""} removed'
    table = Table(title=title, title_justify='left')
    stages = report.stages()
    rows = summary(report)
    zeros = ['zeros'] if any(row.zeros for row in rows) else []
    for column in ('', *stages, 'removed', *zeros):
        table.add_column(column, justify='left' if not column else 'right')
    for row in rows:
        last = [row.removed, row.zeros] if zeros else [row.removed]
        table.add_row(row.label, *(values_of(row) or [''] * len(stages)), *last)
    console.print(table)
    share = report.uncovered_share or 0.0
    if share >= LEAST_UNCOVERED:
        names = list(report.uncovered)
        more = f' and {len(names) - 3} more' if len(names) > 3 else ''
        console.print(
            f'{100 * share:.3g} % of the parameters have no units: {", ".join(names[:3])}{more} '
            '(uncovered in report.json)',
            highlight=False,
        )
    said = advice(report)
    if said:
        console.print(said, highlight=False)
