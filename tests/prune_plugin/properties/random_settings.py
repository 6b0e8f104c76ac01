"""Random settings of a StructuredPruner, and what they ask, worked out without the pruner."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from hypothesis import assume
from hypothesis import strategies as st
from random_models import Drawn
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from projects.prune_plugin import UNITS, PruneState, slim
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.methods.pruners import Plan, Pruner
from projects.prune_plugin.structure.units import UnitGroup

CRITERIA = (
    dict(type='L1'), dict(type='L1', parts='in', normalize='mean'), dict(type='L2', parts='both'),
    dict(type='Random', seed=4), dict(type='Remain', normalize='max'),
)  # fmt: skip
ALLOCATORS = (
    dict(type='Knapsack'), dict(type='Global'), dict(type='Uniform'),
    dict(type='Uniform', exact=True), dict(type='LayerWise'),
)  # fmt: skip
#: Allocators that are to stop at the first unit, or chunk, that keeps the limit.
CLOSE = ('Knapsack', 'Global')


@st.composite
def structured(draw: st.DrawFn, drawn: Drawn, dense: nn.Module) -> dict:
    """A ``prune_cfg`` for a model that was drawn; most budgets are within reach."""
    quantities = ['params', 'units'] + ['flops'] * (drawn.input_shape is not None)
    shape = dict(input_shape=drawn.input_shape) if 'CoupledChannels' in drawn.units else {}
    finders = [dict(type=name, **shape) for name in drawn.units]
    groups = {
        unit['type']: found
        for unit in finders
        if (found := build(UNITS, unit, 'units').find(dense)[0])
    }
    assume(groups)
    kinds = draw(st.lists(st.sampled_from(sorted(groups)), min_size=1, unique=True))
    prune_cfg = dict(
        units=[unit for unit in finders if unit['type'] in kinds],
        criterion=draw(st.sampled_from(CRITERIA)),
        allocator=draw(st.sampled_from(ALLOCATORS)),
        budget=dict(type=draw(st.sampled_from(quantities))),
        min_keep=draw(st.integers(0, 3)),
        round_to=draw(st.sampled_from((None, None, None, 2, 3, 4))),
        profile=dict(input_shape=drawn.input_shape),
    )
    chosen = [group for kind in kinds for group in groups[kind]]
    left = quantity(drawn, dense, chosen, prune_cfg)
    full = left({group.name: group.size for group in chosen})
    least = left(least_counts(chosen, prune_cfg))
    reachable = min(1 - least[name] / full[name] for name in full)
    prune_cfg['budget']['ratio'] = draw(st.floats(0.01, 1.1)) * (reachable or 0.5) * 0.99
    return prune_cfg


def least_counts(groups: Sequence[UnitGroup], prune_cfg: Mapping) -> dict[str, int]:
    """Fewest units that the settings leave in each group."""
    counts = {}
    for group in groups:
        least = max(min(prune_cfg['min_keep'], group.size), group.least)
        step = prune_cfg['round_to'] or 1
        counts[group.name] = min(-(-least // step) * step, group.size)
    return counts


def count_left(model: nn.Module) -> int:
    """The model's parameters, tied ones once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def quantity(drawn: Drawn, dense: nn.Module, groups: Sequence[UnitGroup], prune_cfg: Mapping):
    """``units kept by group -> {what is limited: how much is left of it}``, counted for real."""

    def left(kept: Mapping[str, int]) -> dict[str, float]:
        kind = prune_cfg['budget']['type']
        if kind == 'units':
            totals: dict[str, float] = {}
            for group in groups:
                totals[group.kind] = totals.get(group.kind, 0) + kept[group.name]
            return totals
        if kind == 'params':
            return dict(params=drawn.count(kept, *drawn.description))
        return dict(flops=flops(with_counts(dense, groups, kept), drawn.input_shape))

    return left


def with_counts(
    dense: nn.Module, groups: Sequence[UnitGroup], kept: Mapping[str, int]
) -> nn.Module:
    """The model with the first so many units of each group, without weights."""
    state = PruneState(
        {g.name: g for g in groups}, {g.name: torch.arange(kept[g.name]) for g in groups}
    )
    return slim(deepcopy(dense), state)


def flops(model: nn.Module, shape: Sequence[int]) -> int:
    """FLOPs of a forward call with one sample, as PyTorch counts them."""
    x = torch.zeros(1, *shape, dtype=next(model.parameters()).dtype)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter knows no fused kernels
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model.requires_grad_(False)(x)
    torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def limits(dense: Mapping[str, float], ratio: float, whole: bool) -> dict[str, float]:
    """What may be left; of units a whole number."""
    exact = {name: total * (1 - ratio) for name, total in dense.items()}
    return {name: int(most + 1e-9) for name, most in exact.items()} if whole else exact


def check_tight(drawn: Drawn, dense: nn.Module, plan: Plan, prune_cfg: Mapping) -> None:
    """The budget is kept, and by those allocators that promise it no unit too many is removed."""
    left = quantity(drawn, dense, plan.groups, prune_cfg)
    kept = {name: len(indices) for name, indices in plan.state.kept.items()}
    whole = prune_cfg['budget']['type'] == 'units'
    full = left({group.name: group.size for group in plan.groups})
    most = limits(full, prune_cfg['budget']['ratio'], whole)
    now = left(kept)
    for name in now:
        assert now[name] <= most[name] * (1 + 1e-9), (name, now, most)
    if prune_cfg['allocator']['type'] not in CLOSE:
        return
    step = prune_cfg['round_to'] or 1
    reduced = [group for group in plan.groups if kept[group.name] < group.size]
    for name in now:
        mine = [group for group in reduced if not whole or group.kind == name]
        more = [left({**kept, g.name: min(g.size, kept[g.name] + step)})[name] for g in mine]
        assert not mine or max(more) > most[name] * (1 - 1e-9), (name, now, most, more)


def check_refused(drawn: Drawn, dense: nn.Module, pruner: Pruner, said: str) -> None:
    """A plan may only be refused where there is nothing to remove, or too little."""
    assert re.search(
        'with min_keep and round_to at most|no units own|need the other units', said
    ), said
    groups, _ = pruner.discover(dense)
    settings = dict(min_keep=pruner.min_keep, round_to=pruner.round_to)
    prune_cfg = dict(budget=dict(type=pruner.budget.quantity))
    left = quantity(drawn, dense, groups, prune_cfg)
    full = left({group.name: group.size for group in groups})
    least = left(least_counts(groups, settings))
    most = limits(full, pruner.budget.ratio, pruner.budget.quantity == 'units')
    assert any(least[name] > most[name] * (1 - 1e-9) for name in least), (said, least, most)
