"""Pruning a range of layers, and removing layers that lost everything."""

from copy import deepcopy

import pytest
import torch
from cases import BOTH, BY_NAME, HEADS, LAYERS, NEURONS

from projects.prune_plugin import PruneState, StructuredPruner, UserError, compose, mask, slim
from projects.prune_plugin.evaluation.example_inputs import example_input
from projects.prune_plugin.evaluation.flops import module_flops
from projects.prune_plugin.evaluation.profiling import count_params
from projects.prune_plugin.methods.pruners.layer_depth import find_blocks
from projects.prune_plugin.structure.modules import SkipLayer

pytest.importorskip('transformers')
LLAMA = BY_NAME['llama-gqa']
CASES = [BY_NAME[name] for name in ('llama-gqa', 'mistral', 'qwen2', 'qwen3', 'gemma', 'gemma2')]


def pruner(ratio: float = 0.3, **kwargs) -> StructuredPruner:
    return StructuredPruner(**{**dict(units=BOTH, budget=dict(ratio=ratio)), **kwargs})


def scores(groups, cheap: int) -> list[torch.Tensor]:
    """Random scores by weight, with the units of one layer far below all others."""
    generator = torch.Generator().manual_seed(4)
    return [
        torch.rand(g.size, generator=generator, dtype=torch.float64)
        * (1e-6 if g.layer_idx == cheap else 1.0)
        for g in groups
    ]


def parameters_of_layer(case, layer: int) -> int:
    kept = {g.name: 0 for g in case.groups() if g.layer_idx == layer}
    return case.count({}) - case.count(kept)


def share_of_layer(case, layer: int = 0, extra: float = 0.0) -> float:
    """The fraction of the model's parameters in one layer's units."""
    return parameters_of_layer(case, layer) / case.count({}) + extra


# layer_start, layer_end


@pytest.mark.parametrize(
    ('layers', 'expected'),
    [((1, 2), {1}), ((None, 2), {0, 1}), ((1, None), {1, 2}), ((0, 99), {0, 1, 2})],
)
def test_only_layers_of_the_range_take_part(layers, expected):
    start, end = layers
    plan = pruner(0.05, layer_start=start, layer_end=end).plan(LLAMA.dense())
    assert {group.layer_idx for group in plan.groups} == expected
    removed = 1 - LLAMA.count({n: len(k) for n, k in plan.state.kept.items()}) / LLAMA.count({})
    assert 0.05 <= removed < 0.06  # of the whole model


def test_a_budget_beyond_the_range_is_refused():
    held = f'All units hold {share_of_layer(LLAMA, 1):.4g} of it: with budget.of=.range'
    with pytest.raises(UserError, match=rf'ratio is 0.5, but .* at most 0\.2.*{held}'):
        pruner(0.5, layer_start=1, layer_end=2).plan(LLAMA.dense())


@pytest.mark.parametrize('kind', ['params', 'flops'])
def test_a_ratio_of_the_range(kind):
    ours = pruner(0.5, layer_start=1, layer_end=2, budget=dict(type=kind, ratio=0.25, of='range'))
    plan = ours.plan(LLAMA.dense())
    removed = LLAMA.count({}) - LLAMA.count({n: len(k) for n, k in plan.state.kept.items()})
    if kind == 'params':
        share = removed / parameters_of_layer(LLAMA, 1)
        assert 0.25 <= share < 0.29
        assert plan.result.achieved == pytest.approx(share)
    assert plan.result.quantity == f'{kind} of the range'
    assert plan.result.achieved >= 0.25


def test_a_range_can_lose_almost_all_of_its_units():
    ours = pruner(0.5, layer_end=1, budget=dict(type='params', ratio=0.99, of='range'), min_keep=0)
    removed = LLAMA.count({}) - LLAMA.count(
        {n: len(k) for n, k in ours.plan(LLAMA.dense()).state.kept.items()}
    )
    assert removed >= 0.99 * parameters_of_layer(LLAMA, 0)


def test_of_is_the_model_or_the_range():
    with pytest.raises(UserError, match="prune_cfg.budget.of is 'layers'; valid are model, range"):
        pruner(0.5, budget=dict(type='params', of='layers'))


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(layer_start=-1), 'prune_cfg.layer_start is -1; it must be a whole number >= 0'),
        (dict(layer_end='3'), "prune_cfg.layer_end is '3'; it must be a whole number"),
        (dict(layer_start=2, layer_end=2), r'layer_end is 2; it must be above layer_start \(2\)'),
        (dict(layer_end=0), r'prune_cfg.layer_end is 0; it must be above layer_start \(0\)'),
        (dict(layer_start=3), 'layer_start 3 leaves no unit group; layers are numbered 0 to 2'),
        (dict(layer_end=1, exclude=[r'.*layers\.0\.']), 'layer_end 1 leaves no unit group'),
        (dict(remove_empty_layers=1, min_keep=0), 'remove_empty_layers is 1; it must be True or'),
        (dict(remove_empty_layers=True), 'remove_empty_layers needs min_keep=0, but it is 1'),
    ],
)
def test_bad_settings_are_named(cfg, message):
    with pytest.raises(UserError, match=message):
        pruner(0.05, **cfg).plan(LLAMA.dense())


# remove_empty_layers


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_an_emptied_layer_goes_and_nothing_else_changes(case):
    dense = case.dense()
    table = scores(case.groups(), cheap=0)
    settings = dict(ratio=share_of_layer(case, extra=0.01), min_keep=0)
    emptied = pruner(**settings).plan(dense, table=table).state
    removing = pruner(remove_empty_layers=True, **settings).plan(dense, table=table)
    assert removing.state.removed_layers == ['model.layers.0']
    assert not emptied.removed_layers
    masked, slimmed = mask(deepcopy(dense), removing.state), slim(deepcopy(dense), removing.state)
    assert isinstance(slimmed.model.layers[0], SkipLayer)
    expected = case.run(masked)
    assert (case.run(slimmed) - expected).abs().max() < 1e-5 * expected.abs().max()
    # The same units gone, with and without the layer: the same function.
    units = {name: k for name, k in removing.state.kept.items() if name in emptied.kept}
    without = slim(deepcopy(dense), PruneState(emptied.groups, units))
    assert (case.run(slimmed) - case.run(without)).abs().max() < 1e-6 * expected.abs().max()
    kept = {n: len(k) for n, k in removing.state.kept.items()}
    assert count_params(slimmed) == case.count(kept) < count_params(without)
    assert not [name for name in slimmed.state_dict() if name.startswith('model.layers.0.')]
    again = slim(case.dense(), PruneState.from_dict(removing.state.to_dict()))
    assert torch.equal(case.run(again), case.run(slimmed))


def test_the_budget_counts_what_goes_with_the_layer():
    """Norms count: to the limit, a layer's 128 more parameters leave room for other units."""
    dense, groups = LLAMA.dense(), LLAMA.groups()
    table = scores(groups, cheap=1)
    ratio = share_of_layer(LLAMA, 1) + 100 / LLAMA.count({})  # its units alone are not enough
    plans = [
        pruner(ratio, min_keep=0, remove_empty_layers=remove).plan(dense, table=table)
        for remove in (False, True)
    ]
    lost = [sum(len(p.state.removed(g.name)) for g in groups) for p in plans]
    assert lost == [2 + 96 + 1, 2 + 96]
    assert count_params(slim(dense, plans[1].state)) == LLAMA.count({'model.layers.1': 0})


@pytest.mark.parametrize('budget', ['params', 'flops'])
def test_the_predicted_cost_is_the_slim_model_s(budget):
    dense = LLAMA.dense()
    removing = pruner(budget=dict(type=budget, ratio=0.4), min_keep=0, remove_empty_layers=True)
    cost, groups = cost_of(removing, dense), LLAMA.groups()
    blocks, _ = find_blocks(dense, groups)
    for chosen in (set(), {0}, {0, 2}, {0, 1, 2}):
        kept = [torch.arange(0 if g.layer_idx in chosen else g.size // 2) for g in groups]
        layers = [blocks[i].layer for i in chosen]
        state = PruneState(
            {g.name: g for g in (*groups, *layers)},
            {g.name: k for g, k in zip((*groups, *layers), (*kept, *[torch.arange(0)] * len(layers)),
                                       strict=True)},
        )  # fmt: skip
        slimmed = slim(deepcopy(dense), state)
        example = example_input(dense, 1)
        flops = sum(module_flops(slimmed, example).values())
        expected = count_params(slimmed) if budget == 'params' else flops
        assert cost.total(torch.tensor([len(k) for k in kept])) == pytest.approx(expected, rel=1e-9)


def cost_of(chosen: StructuredPruner, model):
    """The cost that the allocator sees."""
    seen = []

    class Stop(Exception):
        pass

    def allocate(model, groups, scores, cost):
        seen.append(cost)
        raise Stop

    chosen.allocate = allocate
    with pytest.raises(Stop):
        chosen.plan(model)
    return seen[0]


def test_layers_may_be_units_at_the_same_time():
    case, units = LLAMA, [*BOTH, LAYERS]
    chosen = pruner(0.45, units=units, min_keep=0, remove_empty_layers=True)
    groups, _ = chosen.discover(case.dense())
    table = [
        torch.full((1,), 5.0, dtype=torch.float64) if g.kind == 'layer' else s
        for g, s in zip(groups, scores(groups, cheap=2), strict=True)
    ]
    state = chosen.plan(case.dense(), table=table).state
    assert 'model.layers.2' in state.removed_layers and len(state.groups) == len(groups)
    masked = case.run(mask(case.dense(), state))
    slimmed = slim(case.dense(), state)
    assert (case.run(slimmed) - masked).abs().max() < 1e-5 * masked.abs().max()
    assert count_params(slimmed) <= 0.55 * case.count({}) + 1


@pytest.mark.parametrize('name', ['opt', 'neox', 'vit'])
def test_layers_that_would_still_add_their_biases_stay(name):
    case = BY_NAME[name]
    blocks, refused = find_blocks(case.dense(), case.groups())
    assert not blocks and len(refused) == len(case.sizes['mlp'])
    assert all('it would still add' in reason for reason in refused.values())
    with pytest.raises(UserError, match='remove_empty_layers does nothing here.* still add .*bias'):
        pruner(min_keep=0, remove_empty_layers=True).plan(case.dense())


def test_a_layer_with_something_protected_stays():
    settings = dict(min_keep=0, remove_empty_layers=True)
    with pytest.raises(UserError, match='remove_empty_layers does nothing'):
        pruner(units=[NEURONS], **settings).plan(LLAMA.dense())
    chosen = pruner(0.3, exclude=[r'.*layers\.0\.mlp'], **settings)
    plan = chosen.plan(LLAMA.dense(), table=scores(chosen.discover(LLAMA.dense())[0], cheap=0))
    assert not plan.state.removed_layers


def test_the_rest_of_a_layer_may_go_in_a_second_pruning():
    """Attention first, then the MLP: now the layer is empty."""
    dense = LLAMA.dense()
    attention = [g for g in LLAMA.groups() if g.kind == 'attention']
    first = PruneState(
        {g.name: g for g in attention},
        {g.name: torch.arange(g.size if g.layer_idx else 0) for g in attention},
    )
    once = slim(deepcopy(dense), first)
    chosen = pruner(0.22, units=[NEURONS, HEADS], min_keep=0, remove_empty_layers=True)
    second = chosen.plan(once, table=scores(chosen.discover(once)[0], cheap=0)).state
    assert second.removed_layers == ['model.layers.0']
    both = PruneState.from_dict(compose(first, second).to_dict())
    twice, direct = slim(once, second), slim(deepcopy(dense), both)
    assert torch.equal(LLAMA.run(twice), LLAMA.run(direct))
    assert both.removed_layers == ['model.layers.0']
