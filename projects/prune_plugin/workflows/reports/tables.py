"""Units and groups as tables."""

import csv
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, compress
from pathlib import Path

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.fileio import atomic_write
from ...common.json_csv import write_csv
from ...methods.pruners import UnitPlan
from ...structure.prune_state import PruneState
from ...structure.unit_group import UnitGroup

UNIT_COLUMNS = ('layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score', 'pruned')
TABLE_COLUMNS = ('layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score')
SCORE_COLUMNS = ('name', 'layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score')
GROUP_COLUMNS = ('name', 'layer_idx', 'kind', 'size', 'kept', 'kept_share')
#: Rows that are made into text at a time.
ROWS = 16384


class UnitTable:
    """One row per unit, in ascending order of score, as columns.

    Rows are made into text some thousands at a time: a model may have millions of units. Importance
    has the 17 digits that tell any two numbers apart, score has 10.

    Args:
        plan: The plan.
        before: State of the model that the plan is for, if it was slim already; unit numbers are
            then those of the dense model.
    """

    def __init__(self, plan: UnitPlan, before: PruneState | None = None):
        groups = plan.groups
        counts = torch.tensor([group.size for group in groups])
        which = torch.repeat_interleave(torch.arange(len(groups)), counts)
        importance = torch.cat(plan.importance)
        score = importance / plan.cost[which]
        order = score.argsort(stable=True)
        self.importance, self.score = importance[order], score[order]
        self.index = torch.cat([dense_indices(group, before) for group in groups])[order]
        self.pruned = torch.cat([removed_mask(plan.state, group) for group in groups])[order]
        self.group = which[order]
        self.groups = groups
        whole = bool((plan.cost == plan.cost.round()).all())  # they read better without .0
        self.costs = (plan.cost.long() if whole else plan.cost).tolist()

    def lines(self, name: bool = False) -> Iterator[tuple[list[str], list[bool]]]:
        """Chunks of rows without line ends, and whether each one's unit goes.

        Args:
            name: Begin with the group's name.
        """
        starts = [
            (f'{csv_field(g.name)},' if name else '') + f'{g.layer_idx},{csv_field(g.kind)},'
            for g in self.groups
        ]
        costs = [f',{cost!r},' for cost in self.costs]
        columns = (self.group, self.index, self.importance, self.score, self.pruned)
        for at in range(0, len(self.group), ROWS):
            group, index, importance, score, pruned = (c[at : at + ROWS].tolist() for c in columns)
            cells = zip(
                map(starts.__getitem__, group),
                index,
                importance,
                map(costs.__getitem__, group),
                score,
                strict=True,
            )
            text = '%s%d,%.17g%s%.10g\n' * len(group) % tuple(chain.from_iterable(cells))
            yield text.split('\n')[:-1], pruned

    def write_scores(self, path: str | os.PathLike) -> None:
        """Write the table that :func:`read_scores` reads: ``--save-table``."""
        with atomic_write(path) as file:
            file.write(','.join(SCORE_COLUMNS) + '\n')
            for lines, _ in self.lines(name=True):
                file.write('\n'.join(lines) + '\n')

    def write_tables(self, folder: str | os.PathLike) -> None:
        """Write ``units.csv``, ``global_group_table.csv`` and ``groups_to_prune.csv``.

        The second has every unit without the column ``pruned``, the third those that go.
        """
        names = ('units.csv', 'global_group_table.csv', 'groups_to_prune.csv')
        with ExitStack() as stack:
            units, table, chosen = (
                stack.enter_context(atomic_write(Path(folder) / name)) for name in names
            )
            units.write(','.join(UNIT_COLUMNS) + '\n')
            for file in (table, chosen):
                file.write(','.join(TABLE_COLUMNS) + '\n')
            for lines, pruned in self.lines():
                units.write(with_flags(lines, pruned))
                table.write('\n'.join(lines) + '\n')
                chosen.writelines(line + '\n' for line in compress(lines, pruned))


def with_flags(lines: Sequence[str], pruned: Sequence[bool]) -> str:
    """The lines with a last column, 1 for units that go."""
    return ''.join([f'{line},{flag:d}\n' for line, flag in zip(lines, pruned, strict=True)])


def csv_field(text: str) -> str:
    """``text`` as a CSV field, quoted where it must be."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def removed_mask(state: PruneState, group: UnitGroup) -> Tensor:
    """Bool per unit: whether it goes."""
    gone = torch.ones(group.size, dtype=torch.bool)
    gone[state.kept[group.name]] = False
    return gone


def dense_indices(group: UnitGroup, before: PruneState | None) -> Tensor:
    """Numbers of the group's units in the dense model."""
    if before is None or not before.has_units_of(group):
        return torch.arange(group.size)
    return before.kept[group.name]


def read_scores(
    path: str | os.PathLike, groups: Sequence[UnitGroup], before: PruneState | None = None
) -> list[Tensor]:
    """Importance of every unit from a table saved with ``--save-table``.

    Args:
        path: The CSV file.
        groups: Groups of the model at hand; every unit must be in the table.
        before: State of the model at hand, if it is slim already.

    Returns:
        One float64 vector per group.

    Raises:
        UserError: the file can't be read, isn't such a table, or is of another model.
    """
    found: dict[str, dict[int, float]] = {group.name: {} for group in groups}
    line = 1
    try:
        with open(path, encoding='utf-8', newline='') as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != SCORE_COLUMNS:
                raise UserError(
                    f'--from-table {path} is not a score table; its columns must be '
                    f'{",".join(SCORE_COLUMNS)}'
                )
            for row in reader:
                line = reader.line_num
                if row['name'] in found:
                    value = float(row['importance'])
                    if not math.isfinite(value):
                        raise ValueError(f'importance {value}')
                    number = int(row['group_idx'])
                    if number in found[row['name']]:
                        raise ValueError(f'unit {number} of {row["name"]} stands there twice')
                    found[row['name']][number] = value
    except OSError as error:
        raise UserError(f'--from-table {path} cannot be read: {error.strerror}') from error
    except UserError:
        raise
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f'--from-table {path} has a malformed line {line}: {error}') from error
    scores = []
    for group in groups:
        numbers = dense_indices(group, before).tolist()
        missing = [n for n in numbers if n not in found[group.name]]
        if missing:
            raise UserError(
                f'--from-table {path} has no row for unit {missing[0]} of {group.name}; it was '
                'saved for another model or other units'
            )
        scores.append(torch.tensor([found[group.name][n] for n in numbers], dtype=torch.float64))
    return scores


def write_groups(plan: UnitPlan, path: str | os.PathLike) -> None:
    """Write ``report.csv``: one row per unit group."""
    rows = []
    for group in plan.groups:
        kept = len(plan.state.kept[group.name])
        share = f'{kept / group.size:.6f}'
        rows.append((group.name, group.layer_idx, group.kind, group.size, kept, share))
    write_csv(GROUP_COLUMNS, rows, path)
