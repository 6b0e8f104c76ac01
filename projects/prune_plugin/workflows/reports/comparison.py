"""Checkpoints side by side: as a table for the terminal, as CSV and JSON, and as a picture."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...common.fileio import atomic_write
from ...common.json_csv import write_csv, write_json
from .colours import SOFT, STAGE
from .terminal_width import table_console

#: Columns of ``compare.csv`` before the metrics.
MODEL_COLUMNS = (
    'label', 'checkpoint', 'structure', 'params', 'zeros', 'flops', 'latency_ms', 'tokens_per_s',
    'file_bytes', 'weight_bytes',
)  # fmt: skip
MEANINGS = {
    'dense': 'dense',
    'slim': 'slim: units removed',
    'masked': 'masked: single weights set to zero',
    'onnx': 'a file that onnxruntime runs',
    'openvino': 'a file that OpenVINO runs',
    'gguf': 'a file that llama.cpp runs',
}
BETTER = {'max': 'higher is better', 'min': 'lower is better'}


def si(value: float, unit: str = '') -> str:
    """A number with four digits and a prefix: 1201802 is ``1.202 M``."""
    for power, prefix in ((12, 'T'), (9, 'G'), (6, 'M'), (3, 'k')):
        if abs(value) >= 0.99995 * 10**power:
            return f'{value / 10**power:.4g} {prefix}{unit}'
    return f'{value:.4g} {unit}'.rstrip()


#: What is shown of every model beside its metrics: key, name, and how a value reads.
QUANTITIES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ('params', 'parameters', si),
    ('flops', 'FLOPs', si),
    ('latency_ms', 'latency', lambda value: f'{value:.4g} ms'),
    ('tokens_per_s', 'tokens per second', '{:.4g}'.format),
    ('weight_bytes', 'weights in the file', lambda value: si(value, 'B')),
    ('file_bytes', 'whole file', lambda value: si(value, 'B')),
    ('zeros', 'zero weights', lambda value: f'{100 * value:.1f} %'),
)


def quantities(models: Sequence[dict[str, Any]]) -> list[tuple[str, str, Callable[[float], str]]]:
    """``QUANTITIES``, tokens per second only where a model writes any."""
    without = () if any(model.get('tokens_per_s') for model in models) else ('tokens_per_s',)
    return [entry for entry in QUANTITIES if entry[0] not in without]


def write_comparison(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``compare.csv`` (one row per model), ``compare.json``, and ``compare.png``.

    Args:
        report: What :func:`projects.prune_plugin.workflows.compare.compare` returns.
        folder: Where to.

    Returns:
        The files written; no picture without matplotlib, which is logged.
    """
    names = list(dict.fromkeys(name for m in report['models'] for name in m['metrics'] or {}))
    rows = [
        [model.get(key) for key in MODEL_COLUMNS] + [(model['metrics'] or {}).get(n) for n in names]
        for model in report['models']
    ]
    files = [folder / 'compare.csv', folder / 'compare.json', folder / 'compare.png']
    write_csv([*MODEL_COLUMNS, *names], rows, files[0])
    write_json(report, files[1])
    try:
        import matplotlib
    except ImportError:
        print_log('plot left out: install matplotlib (pip install -e ".[plots]")', 'current')
        return files[:2]
    matplotlib.use('Agg', force=False)
    plot_comparison(report, files[2])
    return files


# The table


def change(first: float | None, value: float | None, relative: bool) -> str:
    """How far ``value`` is from the reference: in percent of it, or as a difference."""
    if first is None or value is None or (relative and not first):
        return ''
    if value == first:
        return '='
    return f'{100 * (value / first - 1):+.1f} %' if relative else f'{value - first:+.3g}'


def table_rows(
    report: dict[str, Any], arrows: dict[str, str]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Per quantity its name and, for each model, the value and its change from the first model."""

    def cells(values: list[float | None], read: Callable[[float], str], relative: bool):
        changes = [change(values[0], value, relative) for value in values[1:]]
        shown = ['-' if value is None else read(value) for value in values]
        return list(zip(shown, ['', *changes], strict=True))

    models = report['models']
    rows = [
        (name, cells([model.get(key) for model in models], read, relative=True))
        for key, name, read in quantities(models)
        if key != 'zeros'
    ]
    zeros = ['-' if m['zeros'] is None else f'{100 * m["zeros"]:.1f} %' for m in models]
    rows.append(('zero weights', [(text, '') for text in zeros]))
    for name, better in report['headline'].items():
        values = [(model['metrics'] or {}).get(name) for model in models]
        rows.append((f'{name} {arrows[better]}', cells(values, '{:.4g}'.format, relative=False)))
    return rows


def print_comparison(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the headline figures, each with its change from the first model.

    Models that don't fit beside each other go into a second table, again beside the first model.
    """
    console = console or table_console(120)
    utf = console.encoding.lower().startswith('utf')
    rows = table_rows(report, {'max': '↑', 'min': '↓'} if utf else {'max': '(+)', 'min': '(-)'})
    labels = [model['label'] for model in report['models']]
    widths = [
        [max(len(cells[i][part]) for _, cells in rows) for part in (0, 1)]
        for i in range(len(labels))
    ]
    taken = max(len(name) for name, _ in rows) + max(widths[0][0], 12) + 7
    others = range(1, len(labels))
    beside = max(
        1, (console.width - taken) // (max((sum(widths[i]) for i in others), default=0) + 5)
    )
    for start in range(0, max(1, len(others)), beside):
        shown = [0, *others[start : start + beside]]
        table = Table('')
        for i in shown:
            width = max(sum(widths[i]) + (2 if i else 0), 12)
            heading = Text(wrapped(labels[i], width), justify='right')
            table.add_column(heading, justify='right', min_width=width)
        for name, cells in rows:
            pairs = [(*cells[i], *widths[i]) for i in shown]
            texts = [f'{v:>{a}}  {c:>{b}}' if b else v for v, c, a, b in pairs]
            table.add_row(Text(name), *map(Text, texts))
        console.print(table)
    notes = report['notes']
    console.print(Text(f'Changes are relative to {labels[0]}.'))
    console.print(Text(f'FLOPs: {notes["flops"]}. Latency: {notes["latency_ms"]}.'))
    if not report['headline']:
        console.print(Text(f'Metrics: {notes["metrics"]}.'))
    elif any(len(model['metrics'] or {}) > len(report['headline']) for model in report['models']):
        console.print(Text('The other metrics are in compare.csv.'))


# The picture


def wrapped(label: str, width: int) -> str:
    """A label in lines of at most ``width``, broken after ``/ _ - .`` and blanks where possible."""
    lines = ['']
    for word in re.findall(r'[^/_.\-\s]*[/_.\-\s]?', label):
        if len(lines[-1] + word.rstrip()) > width and lines[-1]:
            lines.append('')
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return '\n'.join(line.strip() for line in lines)


def short(label: str, most: int = 60) -> str:
    """A label without its middle, where it is too long."""
    if len(label) <= most:
        return label
    return f'{label[: most // 2]}…{label[-(most - most // 2 - 1) :]}'


def panels(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What to draw: title, subtitle, one value and one text per model; None wasn't measured."""
    models = report['models']
    found = []
    for key, name, read in quantities(models):
        if key in ('file_bytes', 'zeros'):
            continue
        values = [model.get(key) for model in models]
        if not any(values):
            continue
        texts = ['-' if value is None else read(value) for value in values]
        if values[0]:
            texts[1:] = [
                text if value is None else f'{text} ({100 * value / values[0]:.0f} %)'
                for text, value in zip(texts[1:], values[1:], strict=True)
            ]
        better = 'max' if key == 'tokens_per_s' else 'min'
        found.append(dict(title=name, better=better, values=values, texts=texts))
    for name, better in report['headline'].items():
        values = [(model['metrics'] or {}).get(name) for model in models]
        texts = ['-' if value is None else f'{value:.4g}' for value in values]
        found.append(dict(title=name, better=better, values=values, texts=texts))
    return found


def grid(count: int) -> tuple[int, int]:
    """Rows and columns for so many panels, at most five beside each other."""
    rows = math.ceil(count / 5)
    return rows, math.ceil(count / rows)


def plot_comparison(report: dict[str, Any], path: Path) -> Path:
    """One panel per quantity, one bar per model; the dashed line is the first model."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    models = report['models']
    labels = [wrapped(short(model['label']), 24) for model in models]
    drawn = panels(report)
    rows, columns = grid(len(drawn))
    lines = max(label.count('\n') + 1 for label in labels)
    height = max(0.34, 0.17 * lines + 0.1) * len(models) + 0.75
    figure = Figure(figsize=(1.9 + 2.5 * columns, rows * height + 0.9), layout='constrained')
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    colours = [STAGE[model['structure']] for model in models]
    for axis, panel in zip(axes.flat, drawn, strict=False):
        draw_panel(axis, panel, colours)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    axes[0, 0].set_yticks(range(len(models)), labels)
    axes[0, 0].set_ylim(len(models) - 0.4, -0.6)  # the first model on top
    present = [name for name in MEANINGS if any(m['structure'] == name for m in models)]
    notes = f'dashed line and percentages: relative to {short(models[0]["label"])}'
    if any(model['latency_ms'] for model in models):
        notes += f'\nlatency: {report["notes"]["latency_ms"]}; FLOPs: of one sample'
    figure.legend(
        handles=[Patch(color=STAGE[name], label=MEANINGS[name]) for name in present],
        loc='outside lower center', ncols=len(present), frameon=False, fontsize=9,
        title=notes, title_fontsize=8,
    )  # fmt: skip
    title = f'checkpoints of {Path(report["config"] or "a model").stem} compared'
    figure.suptitle(title, fontsize=11, fontweight='bold')
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')
    return path


def draw_panel(axis: Any, panel: dict[str, Any], colours: Sequence[str]) -> None:
    """Bars from zero with their values written beside them."""
    values = [value or 0 for value in panel['values']]
    axis.barh(range(len(values)), values, color=colours, height=0.62)
    low, high = min(0, *values), max(0, *values)
    high = high if high > low else 1  # all are zero
    span = high - low
    room = 0.085 * max(map(len, panel['texts']))  # of the bars' length, for the widest text
    axis.set_xlim(low * 1.02, high + room * span)
    for place, (value, text) in enumerate(zip(values, panel['texts'], strict=True)):
        axis.text(
            max(value, 0) + 0.03 * span, place, text, va='center', fontsize=8,
            bbox=dict(facecolor='white', edgecolor='none', pad=0.5),
        )  # fmt: skip
    if panel['values'][0] is not None:
        axis.axvline(values[0], color=SOFT, linestyle=(0, (3, 3)), linewidth=0.8, zorder=0)
    arrow = {'max': '↑', 'min': '↓'}[panel['better']]
    axis.set_title(
        f'{wrapped(panel["title"], 34)}\n{arrow} {BETTER[panel["better"]]}',
        loc='left', fontsize=9, pad=4,
    )  # fmt: skip
    axis.set_xticks([])
    axis.tick_params(axis='y', length=0, labelsize=9)
    axis.spines[['top', 'right', 'bottom']].set_visible(False)
