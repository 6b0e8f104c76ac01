"""A run's report at its beginning: what was asked, and what is achieved by count."""

import sys
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from ..evaluation.environment import environment
from ..evaluation.profiling import latency_note
from ..methods.budgets import BudgetResult
from ..methods.pruners import Plan, Pruner
from ..structure.units.coverage import share_within, uncovered, uncovered_share
from .options import PruneOptions
from .run_report import GroupRow, RunReport, Stage, WeightRow

NOTES = {
    'ratio': 'fraction removed, relative to the model given ("dense" here)',
    'flops': 'two per multiply-accumulate, one sample',
    'zeros': 'fraction of the linear and convolution weights of <name>_pruned.pth; zeros bring no '
    'speed-up by themselves',
}


def removed_share(before: float | None, after: float | None) -> float | None:
    """The fraction removed, or None where it wasn't measured."""
    return None if not before or after is None else 1 - after / before


def start_report(
    cfg: Config,
    pruner: Pruner,
    options: PruneOptions,
    model: nn.Module,
    plan: Plan | None,
    profiles: list[dict[str, Any]],
    zeros: float | None = None,
    result: BudgetResult | None = None,
) -> RunReport:
    """The report so far: what was asked, and what is achieved by count."""
    dense, pruned = Stage(**profiles[0]), Stage(**profiles[-1])
    report = RunReport(
        asked=pruner.asked,
        dense=dense,
        pruned=pruned,
        achieved={
            'params': removed_share(dense.params, pruned.params),
            'flops': removed_share(dense.flops, pruned.flops),
            'latency': removed_share(dense.latency_ms, pruned.latency_ms),
            'zeros': zeros,
        },
        config=cfg.filename,
        checkpoint=options.checkpoint,
        prune_cfg=pruner.to_dict(),
        command=sys.argv,
        notes={**NOTES, 'latency_ms': latency_note(pruner.profile, model)},
        environment=environment(),
    )
    if plan:
        add_plan(report, model, plan)
        add_result(report, result or plan.result)
    return report


def add_plan(report: RunReport, model: nn.Module, plan: Plan) -> None:
    """Add the unit groups of a plan, and what can't be pruned."""
    units = plan.units
    report.not_prunable = plan.scored.refused if units is None else units.refused
    if report.not_prunable:
        report.not_prunable_share = share_within(model, report.not_prunable)
    if units is None:
        return
    kept = units.state.kept
    report.groups = [
        GroupRow(group.name, group.kind, group.layer_idx, group.size, len(kept[group.name]))
        for group in units.groups
    ]
    report.removed_layers = units.state.removed_layers
    report.proofs = units.scored.proofs
    report.uncovered = uncovered(model, units.groups)
    report.uncovered_share = uncovered_share(model, units.groups)


def weight_rows(masks: Mapping[str, Tensor]) -> list[WeightRow]:
    """The zeros of each weight, as its mask has them."""
    return [
        WeightRow(name, list(keep.shape), keep.numel(), keep.numel() - int(keep.sum()))
        for name, keep in masks.items()
    ]


def add_result(report: RunReport, result: BudgetResult) -> None:
    """Add what comes of the budget, by its own cost.

    For a quantity that is counted or timed, ``achieved`` keeps that value.
    """
    if report.achieved.get(result.quantity) is None:
        report.achieved[result.quantity] = result.achieved
    report.budget = result
