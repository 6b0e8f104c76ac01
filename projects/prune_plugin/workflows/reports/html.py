"""The report, as a person reads it in a browser: one page that needs no other file and no network."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...common.fileio import atomic_write
from ...common.json_csv import to_json_data
from ..run_report import GroupRow, RunReport
from . import markup
from .advice import advice
from .comparison import change
from .console import number, values_of
from .curve import read_curve
from .explorer import POLICY, STYLE, explorer_section
from .rounds import percent
from .search import goal, search_section
from .summary import Row, size_rows, summary

#: What the pictures show, in the order of the page.
CAPTIONS = {
    'search.png': 'The trials of the search: the metric against what is removed',
    'metrics_params.png': 'The metrics worth looking at first, against parameters',
    'history.png': 'The metrics in all rounds, against sparsity',
    'sensitivity.png': 'What each module alone does to the metrics, when a part of it is removed '
    '(from a --sensitivity run of this model in the same folder)',
    'kept_share.png': 'Kept share of the units per layer',
}
METRICS_NOTE = '↑: higher is better, ↓: lower is better; in brackets: the difference from dense'
ARROWS = {'max': '↑', 'min': '↓'}
#: With more unit groups than that, a kind's bars are folded in at first; so are those of kinds that
#: lost nothing.
MOST_BARS = 60


def write_html(
    report: RunReport,
    folder: Path,
    drawn: Sequence[Path] = (),
    explorer: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html``.

    Args:
        report: The run's.
        folder: Where to; pictures of the run that lie there go into the page.
        drawn: The plots of this report, which go into the page too.
        explorer: What other ratios can be planned with.

    Returns:
        The file.
    """
    found = {path.name: path for path in [*drawn, *earlier_pictures(report, folder)]}
    pictures = {name: found[name].read_bytes() for name in CAPTIONS if name in found}
    path = folder / 'report.html'
    section = ''
    if explorer:
        curve = folder / 'curve.json'
        known = read_curve(str(curve)) if same_model(report, curve) else None
        section = explorer_section(report, explorer, known)
    with atomic_write(path) as file:
        file.write(report_page(report, pictures, section))
    return path


def earlier_pictures(report: RunReport, folder: Path) -> list[Path]:
    """Pictures in ``folder`` that other steps drew of the same model, not of an older run."""
    paths = []
    if report.rounds and report.headline:
        paths.append(folder / 'history.png')
    if report.search:
        paths.append(folder / 'search.png')
    if same_model(report, folder / 'sensitivity.json'):
        paths.append(folder / 'sensitivity.png')
    return [path for path in paths if path.is_file()]


def same_model(report: RunReport, path: Path) -> bool:
    """Whether another report is of the same checkpoint, or without one of the same config."""
    ours = {'checkpoint': report.checkpoint}
    if not report.checkpoint:
        ours['config'] = report.config
    try:
        other = json.loads(path.read_text(encoding='utf-8'))
        return all(other.get(key) == value for key, value in ours.items())
    except (OSError, ValueError, AttributeError):
        return False  # there is none, or it isn't ours


def report_page(
    report: RunReport, pictures: Mapping[str, bytes] | None = None, explorer: str = ''
) -> str:
    """The page as HTML.

    Args:
        report: The run's.
        pictures: PNG files by name, as in ``CAPTIONS``.
        explorer: Its section for other ratios, as HTML.
    """
    report = RunReport.from_dict(to_json_data(report.to_dict()))
    pictures = pictures or {}
    title = f'{model_name(report)}: pruning report'
    shown = [markup.picture(CAPTIONS[name], png) for name, png in pictures.items()]
    parts = [
        f'<header>\n{markup.text(title, tag="h1")}\n{markup.text(lead(report), "lead")}\n</header>',
        markup.section('Before and after', comparison(report), *remarks(report)),
        markup.section('What each layer keeps', *kept_shares(report)),
        explorer,
        markup.section('Zeros by weight', zeros_by_weight(report)),
        markup.section('Rounds', rounds(report)),
        markup.section('Search', *(search_section(report.search) if report.search else ())),
        markup.section('Pictures', *shown),
        markup.section('Left as they are', left_out(report)),
        markup.section('Time', *seconds(report)),
        markup.section('Where this comes from', *origin(report)),
    ]
    more = dict(style=STYLE, policy=POLICY) if explorer else {}
    return markup.page(title, [part for part in parts if part], **more)


def model_name(report: RunReport) -> str:
    """The config's name."""
    return Path(report.config or 'a model').stem


def by_weights(report: RunReport) -> bool:
    """Whether single weights, not units, were pruned."""
    return report.asked['budget'] == 'weights'


# Asked and achieved


def lead(report: RunReport) -> str:
    """What was asked, what came of it, and what it did to the metrics, in one sentence."""
    asked, rows, stages = report.asked, summary(report), report.stages()
    if by_weights(report):
        wanted = f'{asked["ratio"]:.4g} of the weights set to zero'
        got = [f'{percent(report.achieved.get("zeros"), 2)} of them are zero, at dense shapes']
    else:
        wanted = f'{asked["ratio"]:.4g} of {asked["budget"]} removed'
        removed = [row for row in size_rows(report) if row.achieved is not None]
        removed.sort(key=lambda row: row.name != asked['budget'])
        got = [f'{row.removed} of {row.label}' for row in removed]
    if report.search:
        wanted = f'{goal(report.search)}; found: {wanted}'
    sentences = [f'Asked: {wanted}', f'achieved: {", ".join(got)}']
    for row in (row for row in rows if row.better):
        values = zip(row.values, stages, strict=True)
        sentences.append(f'{row.label} {", ".join(f"{number(v)} {stage}" for v, stage in values)}')
    return f'{"; ".join(sentences)}.'


def comparison(report: RunReport) -> str:
    """The table: dense first, then what became of it."""
    stages = list(report.stages())
    rows = [(label_of(row), *cells(row, stages), row.removed) for row in summary(report)]
    return markup.table('Dense against pruned', ['', *stages, 'removed'], rows)


def label_of(row: Row) -> str:
    """A row's name, with the better direction of a metric."""
    return f'{row.label} {ARROWS[row.better]}' if row.better else row.label


def cells(row: Row, stages: Sequence[str]) -> list[str]:
    """A row's values, those of metrics with their difference from the dense model."""
    if not row.values:
        return [''] * len(stages)
    texts = values_of(row)
    if row.better:
        differences = [change(row.values[0], value, relative=False) for value in row.values]
        texts[1:] = [
            f'{text} ({difference})' if difference else text
            for text, difference in zip(texts[1:], differences[1:], strict=True)
        ]
    return texts


def remarks(report: RunReport) -> list[str]:
    """What must be known to read the table."""
    said = []
    if by_weights(report):
        said.append(
            'Single weights are zero, shapes are those of the dense model. Zeros give no speed-up by '
            'themselves: parameters, FLOPs and latency count them and are those of the dense model.'
        )
    elif report.achieved.get('zeros'):
        said.append(
            'The zeros are in a second file, *_pruned.pth, which keeps the dense shapes. Zeros give '
            'no speed-up by themselves.'
        )
    saying = advice(report)
    if saying:
        said.append(saying)
    trained = report.recovered
    if trained:
        epochs = trained.epochs
        extent = f'{epochs} epoch{"s" if epochs > 1 else ""}, {trained.mode}'
        if trained.zeros:
            extent += f'; {percent(trained.zeros, 2)} of its masked tensors are zero'
        said.append(
            f'recovered: the {trained.trained} model after training ({extent}). '
            'Training changes no shape: parameters, FLOPs and latency are those counted and measured '
            'before it.'
        )
    notes = [('removed', 'from dense to pruned'), *report.notes.items()]
    if report.headline:
        notes.insert(0, ('metrics', METRICS_NOTE))
    else:
        said.append(
            'There are no metrics: the config has no test data, or none could be evaluated.'
        )
    return [*(markup.text(s, 'note') for s in said), markup.facts(notes)]


# Layers, rounds, time


def kept_shares(report: RunReport) -> list[str]:
    """A bar for every unit group, kind by kind, and the layers that are gone as a whole."""
    parts = []
    for kind, (size, kept) in report.kind_totals().items():
        groups = [group for group in report.groups if group.kind == kind]
        title = f'{kind}: {kept:,} of {size:,} units kept ({percent(kept / size)})'
        rows = [bar_of(group) for group in groups]
        unfolded = kept < size and len(groups) <= MOST_BARS
        parts.append(markup.folded(title, markup.bars(rows), unfolded))
    if report.removed_layers:
        parts.append(markup.facts([('removed as a whole', ', '.join(report.removed_layers))]))
    return parts


def bar_of(group: GroupRow) -> tuple[str, float, str]:
    """A unit group's name, kept share, and figures."""
    kept, size = group.kept, group.size
    return group.name, kept / size, f'{kept:,} of {size:,} ({percent(kept / size)})'


def rounds(report: RunReport) -> str:
    """One line per round: what was asked, the zeros, and each metric twice."""
    if not report.rounds:
        return ''
    metrics = list(report.headline)
    header = ['round', 'asked', 'zeros']
    for metric in metrics:
        header += [f'{metric} after pruning', 'after training']
    rows = []
    for row in report.rounds:
        line = [str(row.round), f'{row.ratio:.4g}', percent(row.sparsity, 2)]
        for metric in metrics:
            stages = (row.after_prune, row.after_training)
            line += [number((values or {}).get(metric)) for values in stages]
        rows.append(line)
    return markup.table('Rounds', header, rows)


def left_out(report: RunReport) -> str:
    """Modules that could not be cut, and those without units, and why."""
    told = ''
    if reasons := report.not_prunable:
        title = f'{len(reasons):,} modules that cannot be cut'
        told += markup.folded(title, markup.facts(reasons.items()), False)
    if missing := report.uncovered:
        share = percent(report.uncovered_share)
        title = f'{len(missing):,} modules without units, {share} of the parameters'
        told += markup.folded(title, markup.facts(missing.items()), False)
    return told


def zeros_by_weight(report: RunReport) -> str:
    """The zeros of each weight in ``<name>_pruned.pth``."""
    if not report.weights:
        return ''
    rows = [
        (
            row.name,
            row.zeros / row.size,
            f'{row.zeros:,} of {row.size:,} ({percent(row.zeros / row.size)})',
        )
        for row in report.weights
    ]
    title = f'zeros of {len(rows):,} weights'
    return markup.folded(title, markup.bars(rows), False)


def seconds(report: RunReport) -> list[str]:
    """A bar for each step that took a millisecond or more."""
    steps = {step: spent for step, spent in report.seconds.items() if spent >= 1e-3}
    longest = max(steps.values(), default=0)
    rows = [(step, spent / longest, number(spent, ' s')) for step, spent in steps.items()]
    parts = [markup.bars(rows)] if rows else []
    if report.recovered and 'train' not in report.seconds:
        parts.append(markup.text('Without the training and the evaluations after it.', 'soft'))
    return parts


def origin(report: RunReport) -> list[str]:
    """Files, command line, settings and versions."""
    files = [
        ('config', report.config or '-'),
        ('checkpoint pruned', report.checkpoint or 'none: the weights that the config builds'),
    ]
    if report.recovered:
        files.append(('checkpoint recovered', report.recovered.checkpoint))
    versions = [(name, str(value)) for name, value in report.environment.items()]
    settings = report.prune_cfg
    shown = json.dumps(settings, indent=2, ensure_ascii=False) if settings else 'none: the defaults'
    return [
        markup.facts([*files, *versions]),
        markup.text('Command', tag='h3'),
        markup.text(shlex.join(report.command), tag='pre'),
        markup.text('prune_cfg, with the ratio that was pruned at', tag='h3'),
        markup.text(shown, tag='pre'),
    ]
