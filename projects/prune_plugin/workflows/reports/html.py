"""The report, as a person reads it in a browser: one page that needs no other file and no network."""

import json
import shlex
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from ...common.fileio import atomic_write
from ...common.json_csv import to_json_data
from ..run_report import GroupRow, RunReport
from . import markup
from .advice import advice
from .console import values_of
from .curve import read_curve
from .digits import difference, numbers
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
#: What to do about modules that stay as they are.
CANNOT = (
    'They keep their width, and the budget is met by the others. The reason beside each says what stands '
    'in the way. If they hold much of what is to be removed, change what the reason names, or write a '
    'finder for their class (Extending, in the documentation).'
)
UNCOVERED = (
    'Norms, embeddings and output layers are usual here: their widths are those of other layers, or of the '
    'data. If a module that holds much is among them, set prune_cfg.profile.input_shape, so that units can '
    'be discovered by what the model computes, or write a finder for its class (Extending, in the '
    'documentation).'
)
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
        values = zip(values_of(row), stages, strict=True)
        sentences.append(f'{row.label} {", ".join(f"{text} {stage}" for text, stage in values)}')
    return f'{"; ".join(sentences)}.'


def comparison(report: RunReport) -> str:
    """The table: dense first, then what became of it."""
    stages, found = list(report.stages()), summary(report)
    zeros = ['zeros'] if any(row.zeros for row in found) else []
    rows = [
        (label_of(row), *cells(row, stages), row.removed, *([row.zeros] if zeros else []))
        for row in found
    ]
    return markup.table('Dense against pruned', ['', *stages, 'removed', *zeros], rows)


def label_of(row: Row) -> str:
    """A row's name, with the better direction of a metric."""
    return f'{row.label} {ARROWS[row.better]}' if row.better else row.label


def cells(row: Row, stages: Sequence[str]) -> list[str]:
    """A row's values, those of metrics with their difference from the dense model."""
    if not row.values:
        return [''] * len(stages)
    texts = values_of(row)
    if row.better:
        far = [difference(row.values[0], value, row.values) for value in row.values]
        texts[1:] = [
            f'{text} ({by})' if by else text for text, by in zip(texts[1:], far[1:], strict=True)
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
    moments = [
        [
            (values or {}).get(metric)
            for metric in metrics
            for values in (row.after_prune, row.after_training)
        ]
        for row in report.rounds
    ]
    texts = (
        zip(*map(numbers, zip(*moments, strict=True)), strict=True)
        if metrics
        else [()] * len(moments)
    )
    rows = [
        [str(row.round), f'{row.ratio:.4g}', percent(row.sparsity, 2), *shown]
        for row, shown in zip(report.rounds, texts, strict=True)
    ]
    return markup.table('Rounds', header, rows)


def left_out(report: RunReport) -> str:
    """Modules that could not be cut, and those without units, and why."""
    told = ''
    if reasons := report.not_prunable:
        held = report.not_prunable_share
        share = '' if held is None else f', {percent(held)} of the parameters'
        title = f'{modules(reasons)} that cannot be cut{share}'
        inner = markup.text(CANNOT, 'soft') + markup.facts(reasons.items())
        told += markup.folded(title, inner, False)
    if missing := report.uncovered:
        share = percent(report.uncovered_share)
        title = f'{modules(missing)} without units, {share} of the parameters'
        inner = markup.text(UNCOVERED, 'soft') + markup.facts(missing.items())
        told += markup.folded(title, inner, False)
    return told


def modules(names: Sized) -> str:
    """How many modules."""
    return f'{len(names):,} module{"s" if len(names) != 1 else ""}'


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
    """A bar for each step that took a hundredth of a second or more."""
    steps = {step: spent for step, spent in report.seconds.items() if spent >= 0.01}
    longest = max(steps.values(), default=0)
    rows = [(step, spent / longest, f'{spent:,.2f} s') for step, spent in steps.items()]
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
