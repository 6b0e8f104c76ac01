"""A run's report at its beginning: what was asked, and what is achieved by count."""

import sys
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from ..evaluation.environment import environment
from ..evaluation.profiling import latency_note
from ..methods.budgets import Budget, BudgetResult
from ..methods.pruners import Plan, Pruner
from ..structure.units.coverage import uncovered
from .options import PruneOptions
from .run_report import GroupRow, RunReport, Stage

NOTES = {
    'ratio': 'fraction removed, relative to the model given ("dense" here)',
    'flops': 'two per multiply-accumulate, one sample',
    'zeros': 'fraction of the linear and convolution weights of <name>_pruned.pth; zeros bring no '
    'speed-up by themselves',
}


def zeros_in(masks: dict[str, Tensor]) -> float:
    """The fraction of weights that masks remove."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total


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
    masks: dict[str, Tensor],
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
            'zeros': zeros_in(masks) if masks else None,
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
    return report


def add_plan(report: RunReport, model: nn.Module, plan: Plan) -> None:
    """Add the unit groups of a plan, what can't be cut, and what comes of the budget."""
    kept = plan.state.kept
    report.groups = [
        GroupRow(group.name, group.kind, group.layer_idx, group.size, len(kept[group.name]))
        for group in plan.groups
    ]
    report.removed_layers = plan.state.removed_layers
    report.not_prunable = plan.refused
    report.uncovered = uncovered(model, plan.groups)
    add_result(report, plan.result)


def add_result(report: RunReport, result: BudgetResult) -> None:
    """Add what comes of the budget, by its own cost; what is counted or timed itself goes first."""
    report.budget = result
    report.achieved.setdefault(result.quantity, result.achieved)


def add_zeros(report: RunReport, budget: Budget, weights: int, zeros: float) -> None:
    """Add what comes of a budget of single weights.

    Args:
        report: The report.
        budget: The budget.
        weights: How many weights there are to prune.
        zeros: The fraction of them that is zero.
    """
    report.achieved['zeros'] = zeros
    add_result(report, budget.achieved(weights, weights - round(weights * zeros)))
