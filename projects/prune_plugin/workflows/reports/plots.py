"""The report as pictures."""

from pathlib import Path

from mmengine.logging import print_log

from ...common.fileio import atomic_write
from ..run_report import RunReport
from .colours import BLUE, GRID, STAGE, TEXT, TRACK
from .short_names import short_names, starts_of_stages

#: Layers that are named on an axis, at most.
NAMED = 40


def write_plots(report: RunReport, folder: Path) -> list[Path]:
    """Write ``kept_share.png`` and, where there are metrics, ``metrics_params.png``.

    Args:
        report: The run's.
        folder: Where to.

    Returns:
        The files written; none without matplotlib, which is logged.
    """
    try:
        import matplotlib
    except ImportError:
        print_log('plots left out: install matplotlib (pip install -e ".[plots]")', 'current')
        return []
    matplotlib.use('Agg', force=False)
    written = []
    if report.groups:
        written.append(plot_kept_share(report, folder / 'kept_share.png'))
    if report.headline:
        written.append(plot_metrics(report, folder / 'metrics_params.png'))
    return written


def plot_kept_share(report: RunReport, path: Path) -> Path:
    """Kept share of the units per layer, one panel per kind."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(group.kind for group in report.groups))
    figure = Figure(figsize=(9, 2.5 * len(kinds) + 0.6), layout='constrained')
    axes = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
    for axis, kind in zip(axes, kinds, strict=True):
        groups = [group for group in report.groups if group.kind == kind]
        shares = [group.kept / group.size for group in groups]
        places = range(len(groups))
        axis.bar(places, [1] * len(groups), color=TRACK, width=0.8)
        axis.bar(places, shares, color=BLUE, width=0.8)
        if len(groups) <= 24:
            for place, group in zip(places, groups, strict=True):
                text = f'{group.kept}/{group.size}'
                height = group.kept / group.size
                inside = height > 0.85
                axis.text(
                    place, height - 0.03 if inside else height + 0.03, text, fontsize=7,
                    ha='center', va='top' if inside else 'bottom',
                    color='white' if inside else TEXT,
                )  # fmt: skip
        labels, pattern = short_names([group.name for group in groups])
        step = -(-len(groups) // NAMED)
        long = max(map(len, labels)) > 3
        axis.set_xticks(
            list(places)[::step], labels[::step], rotation=60 if long else 0, fontsize=7 if long else 8,
            ha='right' if long else 'center', rotation_mode='anchor' if long else None,
        )  # fmt: skip
        for start in starts_of_stages(labels):
            axis.axvline(start - 0.5, color=TEXT, linewidth=0.6, linestyle=':')
        axis.set_ylim(0, 1.02)
        axis.set_ylabel('kept share')
        total, kept = report.kind_totals()[kind]
        title = f'{kind}: {kept:,} of {total:,} units kept; {pattern}'
        axis.set_title(title, loc='left', fontsize=9)
        axis.spines[['top', 'right']].set_visible(False)
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')
    return path


def plot_metrics(report: RunReport, path: Path) -> Path:
    """The metrics worth looking at first against parameters, one panel each."""
    from matplotlib.figure import Figure

    names = list(report.headline)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    size = (6.4, 4.2) if len(names) == 1 else (4.2 * columns, 3.4 * rows + 0.4)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, name in zip(axes, names, strict=False):
        plot_metric(axis, report, name)
    for axis in list(axes)[len(names) :]:
        axis.set_visible(False)
    with atomic_write(path, 'wb') as file:
        figure.savefig(file, dpi=130, format='png')
    return path


def plot_metric(axis, report: RunReport, name: str) -> None:
    """One metric of every stage."""
    measured = {
        label: ((stage.params or 0) / 1e6, stage.metrics[name])
        for label, stage in report.stages().items()
        if stage.metrics and name in stage.metrics
    }
    points = list(measured.values())
    axis.plot(*zip(*points, strict=True), color='#a0aec0', linewidth=1, zorder=1)
    for stage, (x, y) in measured.items():
        axis.scatter([x], [y], s=60, color=STAGE[stage], zorder=2, label=f'{stage}: {y:.4g}')
    axis.set_xlabel('parameters (millions)')
    better = {'max': 'higher', 'min': 'lower'}[report.headline[name]]
    axis.set_title(f'{name} ({better} is better)', loc='left', fontsize=9)
    axis.set_xlim(left=0)
    highest = max(y for _, y in points)
    if min(y for _, y in points) >= 0:
        axis.set_ylim(0, 1.08 * highest if highest else 1)
    axis.grid(color=GRID)
    axis.legend(frameon=False, loc='best', fontsize=8)
    axis.spines[['top', 'right']].set_visible(False)
