"""Asked against achieved, quantity by quantity: for the terminal, for the page, and as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...common.json_csv import write_csv
from ..run_report import STAGES, RunReport

SUMMARY_COLUMNS = ('quantity', 'unit', 'asked', 'achieved', *STAGES)


class Quantity(NamedTuple):
    """What is counted or timed of every stage.

    Attributes:
        name: As among the keys of ``achieved``.
        label: As in the tables.
        key: Of the stages.
        unit: Of its values.
    """

    name: str
    label: str
    key: str
    unit: str = ''


QUANTITIES = (
    Quantity('params', 'parameters', 'params'),
    Quantity('flops', 'FLOPs', 'flops'),
    Quantity('latency', 'latency', 'latency_ms', 'ms'),
)


@dataclass(frozen=True)
class Row:
    """One quantity.

    Attributes:
        name: The quantity's name.
        label: The same for people.
        values: One for each of the report's stages, None where it wasn't measured; or none at all.
        removed: The fraction removed as text; empty for metrics.
        zeros: The fraction of zeros as text; empty where none are made.
        asked: The fraction to remove, of the budget's quantity.
        achieved: The fraction removed, where it is known.
        unit: Of the values.
        better: Of a metric, which direction is better; None for the others.
    """

    name: str
    label: str
    values: Sequence[float | None]
    removed: str = ''
    asked: float | None = None
    achieved: float | None = None
    unit: str = ''
    better: str | None = None
    zeros: str = ''


def fraction(value: float | None) -> str:
    """A fraction in percent; a dash for None."""
    return '-' if value is None else f'{100 * value:.2f} %'


def share(before: float | None, after: float | None) -> str:
    """The fraction removed, in percent."""
    return fraction(None if not before or after is None else 1 - after / before)


def is_pruned(report: RunReport, stage: str) -> bool:
    """Whether a stage's model is the one that has lost what the budget asked for.

    Not so is the weight-level pruned model beside a slim one, nor what training has made of it.
    """
    trained = report.recovered
    other = trained is not None and trained.trained == 'unstructured' and bool(report.groups)
    return stage == 'pruned' or (stage == 'recovered' and not other)


def summary(report: RunReport) -> list[Row]:
    """Asked against achieved, line by line: sizes, latency, the budget's quantity, units, metrics."""
    return [*size_rows(report), *unit_rows(report), *metric_rows(report)]


def size_rows(report: RunReport) -> list[Row]:
    """What is counted and timed of every model; then the budget's quantity, if it is none of these."""
    rows = [size_row(report, quantity) for quantity in QUANTITIES]
    budget = report.budget
    if budget is None or any(r.name == budget.quantity and r.achieved is not None for r in rows):
        return rows
    values = [budget.pruned if is_pruned(report, s) else budget.dense for s in report.stages()]
    masked = budget.quantity == 'weights'  # they become zero
    own = Row(
        budget.quantity, budget.quantity, values, '' if masked else fraction(budget.achieved),
        budget.asked, budget.achieved, budget.unit, zeros=fraction(budget.achieved) if masked else '',
    )  # fmt: skip
    return [*(row for row in rows if row.name != own.name), own]


def size_row(report: RunReport, quantity: Quantity) -> Row:
    """One quantity that every stage has."""
    values = [stage.size[quantity.key] for stage in report.stages().values()]
    removed = report.achieved.get(quantity.name)
    asked = report.asked.get('ratio') if report.asked.get('budget') == quantity.name else None
    return Row(
        quantity.name, quantity.label, values, fraction(removed), asked, removed, quantity.unit
    )


def unit_rows(report: RunReport) -> list[Row]:
    """Zeros, units of each kind, and whole layers."""
    rows = []
    zeros = report.achieved.get('zeros')
    if zeros:
        rows.append(
            Row('zeros', 'weights in *_pruned.pth', (), achieved=zeros, zeros=fraction(zeros))
        )
    for kind, (size, kept) in report.kind_totals().items():
        values = [kept if is_pruned(report, stage) else size for stage in report.stages()]
        name = f'{kind} units'
        rows.append(Row(name, name, values, share(size, kept), achieved=1 - kept / size))
    if report.removed_layers:
        rows.append(Row('layers', 'whole layers', (), f'{len(report.removed_layers)}'))
    return rows


def metric_rows(report: RunReport) -> list[Row]:
    """The metrics worth looking at first."""
    stages = report.stages().values()
    return [
        Row(name, name, [(stage.metrics or {}).get(name) for stage in stages], better=better)
        for name, better in report.headline.items()
    ]


def write_summary(report: RunReport, path: Path) -> None:
    """Write ``summary.csv``: one row per quantity, a column for each stage that there may be."""
    lines = []
    for row in summary(report):
        values = dict(zip(report.stages(), row.values, strict=False))
        figures = [row.asked, row.achieved, *(values.get(stage) for stage in STAGES)]
        if any(figure is not None for figure in figures):
            lines.append([row.name, row.unit, *map(whole, figures)])
    write_csv(SUMMARY_COLUMNS, lines, path)


def whole(value: float | None) -> float | None:
    """A number without fraction as an int: it reads better."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
