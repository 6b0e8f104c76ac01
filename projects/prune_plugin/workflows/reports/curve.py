"""Curves of accuracy against size, FLOPs and time: CSV, JSON, a picture, a table for the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table

from ...common.errors import UserError
from ...common.fileio import atomic_write
from ...common.json_csv import write_csv, write_json
from .colours import GRID, SERIES, SOFT
from .digits import number
from .rounds import percent
from .terminal_width import table_console

COLUMNS = (
    'series', 'ratio', 'removed', 'params', 'flops', 'latency_ms', 'dense_latency_ms', 'checkpoint',
)  # fmt: skip
#: What a model's size can be measured by: key, and its name on an axis.
SIZES = {'params': 'parameters', 'flops': 'FLOPs', 'latency_ms': 'latency'}
MARKERS = 'osD^vPX'
#: Metrics that are drawn and shown at most.
SHOWN = 4
BETTER = {'max': 'higher is better', 'min': 'lower is better'}


def write_curve(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``curve.csv`` (dense first) and ``curve.json``.

    Args:
        report: As in ``curve.json``. A row without metrics has empty cells for them.
        folder: Where to.
    """
    write_curves_csv({'': report}, folder / 'curve.csv')
    write_json(report, folder / 'curve.json')


def write_curves_csv(reports: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the points of several curves, by the name before their series."""
    lines, names = (
        [],
        dict.fromkeys(n for r in reports.values() for n in (r['dense']['metrics'] or ())),
    )
    for name, report in reports.items():
        dense = {**dict.fromkeys(COLUMNS), 'series': 'dense', 'ratio': 0.0, 'removed': 0.0}
        for row in ({**dense, **report['dense']}, *report['rows']):
            metrics = row['metrics'] or {}
            cells = {**row, 'series': joined(name, row['series'])}
            lines.append([*(cells[key] for key in COLUMNS), *(metrics.get(n) for n in names)])
    write_csv((*COLUMNS, *names), lines, path)


def joined(name: str, series: str) -> str:
    """A series of one of several files."""
    return f'{name}: {series}' if name else series


def read_curve(path: str) -> dict[str, Any]:
    """The content of a ``curve.json``.

    Raises:
        UserError: it can't be read, or is another file.
    """
    try:
        report = json.loads(Path(path).read_text(encoding='utf-8'))
        points = [
            (row['series'], row['ratio'], row['metrics'], row['params']) for row in report['rows']
        ]
        found = bool(points and report['dense']['params'] and isinstance(report['headline'], dict))
    except OSError as error:
        raise UserError(f'--curves {path} cannot be read: {error.strerror}') from error
    except (ValueError, KeyError, TypeError):
        found = False
    if not found:
        raise UserError(
            f'--curves {path} is no curve.json that tools/analysis_struct.py --ratios wrote'
        )
    return report


def format_point(row: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """A point in a line."""
    start = f'{row["series"]} at {row["ratio"]:g}'
    values = [f'{percent(row["removed"] or 0.0, 2)} removed', *metrics_of(row, report)]
    return f'{start}: {", ".join(values)}'


def metrics_of(row: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """``name dense -> value`` of the headline metrics."""
    dense, found = report['dense']['metrics'] or {}, row['metrics'] or {}
    names = [name for name in report['headline'] if name in found]
    return [f'{name} {number(dense.get(name))} -> {number(found[name])}' for name in names[:SHOWN]]


def print_curve(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print one line per point."""
    console = console or table_console()
    names = list(report['headline'])[: SHOWN if console.width >= 100 else 1]
    several = len(report['series']) > 1
    asked = f'ratio: fraction of {report["asked"]["budget"]} removed; no training'
    table = Table(title=asked, title_justify='left')
    for heading in (*(['series'] if several else []), 'ratio', 'parameters', 'FLOPs', 'ms', *names):
        table.add_column(
            heading, justify='left' if heading == 'series' else 'right', overflow='fold'
        )
    dense = {'series': 'dense', 'ratio': 0.0, 'latency_ms': None, **report['dense']}
    for row in (dense, *report['rows']):
        cells = [row['series']] if several else []
        if row.get('out_of_reach'):
            table.add_row(*cells, f'{row["ratio"]:g}', 'out of reach')
            continue
        share = (
            row['latency_ms']
            and row['dense_latency_ms']
            and (
                f'{number(row["latency_ms"])} ({100 * row["latency_ms"] / row["dense_latency_ms"]:.0f} %)'
            )
        )
        cells += [f'{row["ratio"]:g}' if row is not dense else '' if several else 'dense']
        cells += [number(row['params']), number(row['flops']), share or '-']
        table.add_row(*cells, *(number((row['metrics'] or {}).get(name)) for name in names))
    console.print(table)
    for reason in dict.fromkeys(
        row['out_of_reach'] for row in report['rows'] if row['out_of_reach']
    ):
        console.print(f'out of reach: {reason}', highlight=False)


# The picture


def plot_curves(reports: Mapping[str, Mapping[str, Any]], path: Path) -> Path | None:
    """Metrics against what is left of parameters, FLOPs and time, one line per series.

    Without metrics: FLOPs and time against parameters.

    Args:
        reports: Contents of ``curve.json``, by the name that is put before their series.
        path: Where to.

    Returns:
        The file; None without matplotlib, which is logged.
    """
    try:
        import matplotlib
    except ImportError:
        print_log(
            f'{path.name} left out: install matplotlib (pip install -e ".[plots]")', 'current'
        )
        return None
    matplotlib.use('Agg', force=False)
    from matplotlib.figure import Figure

    headline = {n: b for r in reports.values() for n, b in r['headline'].items()}
    metrics = dict(list(headline.items())[:SHOWN])
    lines = [line for name, report in reports.items() for line in lines_of(name, report)]
    sizes = [key for key in SIZES if any(p[key] is not None for line in lines for p in line[1][1:])]
    ys = list(metrics) or sizes[1:] or sizes
    xs = sizes if metrics else sizes[:1]
    figure = Figure(figsize=(4.1 * len(xs) + 0.6, 3.1 * len(ys) + 0.9), layout='constrained')
    axes = figure.subplots(len(ys), len(xs), squeeze=False, sharex='col')
    for row, y in zip(axes, ys, strict=True):
        for axis, x in zip(row, xs, strict=True):
            draw(axis, lines, x, y, metrics.get(y))
    for axis, x in zip(axes[-1], xs, strict=True):
        axis.set_xlabel(f'{SIZES[x]} left (% of dense)')
    for axis, y in zip(axes[:, 0], ys, strict=True):
        axis.set_ylabel(y if y in metrics else f'{SIZES[y]} left (%)')
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc='outside upper left',
        ncols=min(3, len(labels)),
        frameon=False,
        fontsize=8,
    )
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')
    return path


def lines_of(name: str, report: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each series with its points, the dense model first: shares of sizes in percent, and metrics."""
    dense = report['dense']
    first = {**dict.fromkeys(SIZES, 100.0), **(dense['metrics'] or {})}
    found = []
    for series in report['series']:
        rows = [r for r in report['rows'] if r['series'] == series and r['params'] is not None]
        points = [
            {
                'params': percent_of(row['params'], dense['params']),
                'flops': percent_of(row['flops'], dense['flops']),
                'latency_ms': percent_of(row['latency_ms'], row['dense_latency_ms']),
                **(row['metrics'] or {}),
            }
            for row in sorted(rows, key=lambda row: row['ratio'])
        ]
        found.append((joined(name, series), [first, *points]))
    return found


def percent_of(value: float | None, whole: float | None) -> float | None:
    """A share in percent; None where one wasn't measured."""
    return None if value is None or not whole else 100 * value / whole


def draw(
    axis: Any, lines: Sequence[tuple[str, list[dict]]], x: str, y: str, better: str | None
) -> None:
    """One panel: a metric, or a size, against a size."""
    values = []
    for i, (label, points) in enumerate(lines):
        drawn = [(p[x], p[y]) for p in points if p.get(x) is not None and p.get(y) is not None]
        if not drawn:
            continue
        colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
        style = '-' if i < len(SERIES) else '--'
        axis.plot(
            *zip(*drawn, strict=True), style, color=colour, marker=marker, markersize=5,
            linewidth=1.4, label=label,
        )  # fmt: skip
        values += [value for _, value in drawn]
        axis.axhline(
            drawn[0][1], color=SOFT, linewidth=0.8, linestyle=':', zorder=0,
            label='_' if i else 'dense',
        )  # fmt: skip
    axis.set_xlim(0, 103)
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axis.set_yscale('log')
    elif values and min(values) >= 0:
        axis.set_ylim(bottom=0)
    if better:
        axis.set_title(BETTER[better], loc='left', fontsize=8)
    axis.grid(color=GRID)
    axis.spines[['top', 'right']].set_visible(False)
