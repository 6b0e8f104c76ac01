"""What the explorer of a report plans with: sorted scores, floors, and costs as functions of counts."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..evaluation.example_inputs import example_of
from ..methods.allocators import Global
from ..methods.budgets.costs import ProductCost, ScaledCost, TableCost, product_cost
from ..methods.budgets.flops import flops_cost
from ..methods.constraint import Cost, counts, sizes
from ..methods.pruners import Pruner, StructuredPruner, UnitPlan

#: Units up to which a page gets an explorer: eight bytes each, and as much arithmetic.
MOST_UNITS = 1_000_000


def explorer_data(
    pruner: Pruner, model: nn.Module, plan: UnitPlan, profiles: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Everything that a page needs to plan at other ratios; None where its arithmetic is another.

    Args:
        pruner: What has planned.
        model: The dense model.
        plan: Its plan.
        profiles: Sizes of the dense model and of the pruned one.
    """
    groups, scores = plan.groups, plan.importance
    if not isinstance(pruner, StructuredPruner) or pruner.remove_empty_layers or not groups:
        return None
    if pruner.rescoring is not None:  # scores change on the way to a ratio
        return None
    if sum(group.size for group in groups) > MOST_UNITS or pruner.budget.ratio is None:
        return None
    if not isinstance(pruner.round_to, int):  # the page has one number for all kinds
        return None
    kept = [plan.state.kept[group.name] for group in groups]
    costs = {'params': written(product_cost(model, groups))}
    if profiles[0].get('flops'):
        costs |= flops_of(pruner, model, plan, counts(kept), profiles)
    if isinstance(plan.scored.cost, TableCost):
        costs['latency'] = written(plan.scored.cost)
    ordered = [score.double().sort(stable=True).values for score in scores]
    return {
        'ratio': pruner.budget.ratio,
        'budget': pruner.budget.quantity,
        'allocator': 'Global' if isinstance(pruner.allocator, Global) else 'Knapsack',
        'minKeep': pruner.min_keep,
        'roundTo': pruner.round_to,
        'groups': [
            dict(name=g.name, kind=g.kind, size=g.size, least=g.least, whole=bool(g.is_whole))
            for g in groups
        ],
        'scores': b64encode(torch.cat(ordered).numpy().astype('<f8').tobytes()).decode('ascii'),
        'costs': costs,
        'dense': {name: profiles[0].get(key) for name, key in QUANTITIES.items()},
    }


#: Quantities of the explorer, and what a profile calls them.
QUANTITIES = {'params': 'params', 'flops': 'flops', 'latency': 'latency_ms'}


def flops_of(
    pruner: StructuredPruner,
    model: nn.Module,
    plan: UnitPlan,
    left: Tensor,
    profiles: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """FLOPs as a function of the units kept, so scaled that it fits this plan's; empty if unknown."""
    groups = plan.groups
    try:
        example = plan.scored.example or example_of(model, vars(pruner.profile), 1, 'FLOPs')
        cost = flops_cost(model, groups, example)
    except UserError:
        return {}
    full, saved = cost.total(sizes(groups)), profiles[0]['flops'] - profiles[-1]['flops']
    predicted = full - cost.total(left)
    factor = saved / predicted if predicted > 0 else 1.0
    return {'flops': written(ScaledCost(cost, factor, full))}


def written(cost: Cost) -> dict[str, Any]:
    """A cost as plain data."""
    if isinstance(cost, ScaledCost):
        return {**written(cost.cost), 'factor': cost.factor, 'dense': cost.dense}
    if isinstance(cost, TableCost):
        tables = [[widths.tolist(), costs.tolist()] for widths, costs in cost.tables]
        return dict(base=cost.base, factor=cost.factor, tables=tables)
    assert isinstance(cost, ProductCost)
    places = cost.shares.nonzero().tolist()
    return dict(
        constant=cost.constant,
        multipliers=cost.multipliers.tolist(),
        widths=cost.widths.tolist(),
        shares=[[*place, float(cost.shares[tuple(place)])] for place in places],
    )
