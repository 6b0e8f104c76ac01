"""Units and groups as tables."""

import csv
import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError
from ..pruners import Plan
from ..state import PruneState
from ..units.base import UnitGroup
from .formats import write_csv

UNIT_COLUMNS = ('layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score', 'pruned')
SCORE_COLUMNS = ('name', 'layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score')
GROUP_COLUMNS = ('name', 'layer_idx', 'kind', 'size', 'kept', 'kept_share')


class UnitTable:
    """One row per unit, in ascending order of score, as columns.

    Args:
        plan: The plan.
        before: State of the model that the plan is for, if it was slim already; unit numbers are
            then those of the dense model.
    """

    def __init__(self, plan: Plan, before: PruneState | None = None):
        groups = plan.groups
        counts = [group.size for group in groups]
        which = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(counts))
        importance = torch.cat(plan.importance)
        cost = plan.cost[which]
        removed = torch.cat([removed_mask(plan.state, group) for group in groups])
        score = importance / cost
        order = score.argsort(stable=True)
        index = torch.cat([dense_indices(group, before) for group in groups])
        self.group = which[order].tolist()
        self.index = index[order].tolist()
        self.importance = importance[order].tolist()
        whole = bool((cost == cost.round()).all())  # parameters and FLOPs read better without .0
        self.cost = (cost.long() if whole else cost)[order].tolist()
        self.score = score[order].tolist()
        self.pruned = removed[order].long().tolist()
        self.groups = groups

    def write_units(self, path: str | os.PathLike) -> None:
        """Write ``units.csv``."""
        layers = [group.layer_idx for group in self.groups]
        kinds = [group.kind for group in self.groups]
        rows = zip(
            map(layers.__getitem__, self.group),
            map(kinds.__getitem__, self.group),
            self.index,
            self.importance,
            self.cost,
            self.score,
            self.pruned,
            strict=True,
        )
        write_csv(UNIT_COLUMNS, rows, path)

    def write_scores(self, path: str | os.PathLike) -> None:
        """Write the table that :func:`read_scores` reads: ``--save-table``."""
        rows = (
            (g.name, g.layer_idx, g.kind, index, importance, cost, score)
            for g, index, importance, cost, score in zip(
                map(self.groups.__getitem__, self.group),
                self.index,
                self.importance,
                self.cost,
                self.score,
                strict=True,
            )
        )
        write_csv(SCORE_COLUMNS, rows, path)


def removed_mask(state: PruneState, group: UnitGroup) -> Tensor:
    """Bool per unit: whether it goes."""
    gone = torch.ones(group.size, dtype=torch.bool)
    gone[state.kept[group.name]] = False
    return gone


def dense_indices(group: UnitGroup, before: PruneState | None) -> Tensor:
    """Numbers of the group's units in the dense model."""
    if before is None or group.name not in before.kept:
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
    try:
        with open(path, encoding='utf-8', newline='') as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != SCORE_COLUMNS:
                raise UserError(
                    f'--from-table {path} is not a score table; its columns must be '
                    f'{",".join(SCORE_COLUMNS)}'
                )
            for row in reader:
                if row['name'] in found:
                    value = float(row['importance'])
                    if not math.isfinite(value):
                        raise ValueError(f'importance {value}')
                    found[row['name']][int(row['group_idx'])] = value
    except OSError as error:
        raise UserError(f'--from-table {path} cannot be read: {error.strerror}') from error
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f'--from-table {path} holds a malformed row: {error}') from error
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


def write_groups(plan: Plan, path: str | os.PathLike) -> None:
    """Write ``report.csv``: one row per unit group."""
    rows = []
    for group in plan.groups:
        kept = len(plan.state.kept[group.name])
        share = f'{kept / group.size:.6f}'
        rows.append((group.name, group.layer_idx, group.kind, group.size, kept, share))
    write_csv(GROUP_COLUMNS, rows, path)


def kind_totals(groups: Sequence[dict]) -> dict[str, tuple[int, int]]:
    """Units before and after, by kind, from ``report.json``'s groups."""
    totals: dict[str, tuple[int, int]] = {}
    for group in groups:
        size, kept = totals.get(group['kind'], (0, 0))
        totals[group['kind']] = (size + group['size'], kept + group['kept'])
    return totals
