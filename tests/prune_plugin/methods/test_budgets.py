"""Budgets with every allocator: what was asked is achieved, measured on the slim model."""

import pytest
import tiny_models as tiny
import torch
from cases import ALLOCATOR_ROWS, BUDGET_ROWS, BY_NAME, GREEDY
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from projects.prune_plugin import BUDGETS, StructuredPruner, UserError, mask, slim
from projects.prune_plugin.checkpoints.engines import timing
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.evaluation.flops import module_flops
from projects.prune_plugin.evaluation.profiling import count_params
from projects.prune_plugin.methods.budgets import layer_shapes
from projects.prune_plugin.methods.constraint import sizes
from projects.prune_plugin.structure.units import UnitGroup

PROFILE = dict(input_shape=(3, 32, 32), batch_size=2)
FAMILIES = ('vit', 'resnet18-channel')


def flops_of(model) -> int:
    return sum(module_flops(model, ((torch.zeros(1, 3, 32, 32),), {})).values())


def flops_as_time(calls, *args, **kwargs) -> list[float]:
    """Stands for the clock: the same call always takes the same 'time'."""
    times = []
    for call in calls:
        counter = FlopCounterMode(display=False)
        with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            call()
        times.append(counter.get_total_flops() / 1e6)
    return times


@pytest.fixture
def steady_clock(monkeypatch):
    monkeypatch.setattr(
        timing,
        'model_latency',
        lambda models, example, **_: flops_as_time(
            [lambda m=m: m(*example[0], **example[1]) for m in models]
        ),
    )


def measured(quantity: str, model) -> float:
    if quantity == 'params':
        return count_params(model)
    return flops_of(model)  # also what the stubbed clock shows


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('allocator', ALLOCATOR_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
@pytest.mark.parametrize('budget', BUDGET_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
def test_asked_is_achieved(family, allocator, budget, steady_clock):
    case, dense = BY_NAME[family], BY_NAME[family].dense()
    pruner = StructuredPruner(
        case.units, dict(type='L1'), allocator, budget, min_keep=1, profile=PROFILE
    )
    assert pruner.asked == {'budget': budget['type'], 'ratio': budget['ratio']}
    plan = pruner.plan(dense)
    kept = torch.tensor([len(plan.state.kept[g.name]) for g in plan.groups])
    assert (kept >= 1).all()
    if budget['type'] == 'units':
        for kind, widths in case.sizes.items():
            left = sum(len(plan.state.kept[g.name]) for g in plan.groups if g.kind == kind)
            assert left <= int(sum(widths) * 0.6 + 1e-9)
            if allocator['type'] in GREEDY:
                assert left == int(sum(widths) * 0.6 + 1e-9)
        return
    before = measured(budget['type'], dense)
    after = measured(budget['type'], slim(dense, plan.state))
    limit = before * (1 - budget['ratio'])
    slack = 0.02 * before if budget['type'] == 'latency' else 1e-6 * before  # interpolated
    assert after <= limit + slack
    if allocator['type'] in GREEDY:
        assert limit - after <= float(plan.cost.max()) + slack


@pytest.mark.parametrize('family', ('vit', 'resnet18-channel', 'resnet50-channel'))
@pytest.mark.parametrize('kind', ['params', 'flops'])
def test_predicted_cost_is_the_slim_model_s(family, kind):
    case, dense = BY_NAME[family], BY_NAME[family].dense()
    cost = build(BUDGETS, dict(type=kind), '').cost(dense, case.groups(), PROFILE)
    assert cost.total(sizes(case.groups())) == pytest.approx(measured(kind, dense), rel=1e-12)
    for level in ('half', 'one'):
        state = case.state(level)
        kept = torch.tensor([len(state.kept[g.name]) for g in case.groups()])
        slimmed = slim(case.dense(), state)
        assert cost.total(kept) == pytest.approx(measured(kind, slimmed), rel=1e-12)


@pytest.mark.parametrize('name', ['vit-layers', 'llama-gqa', 'llama-layers', 'opt', 'neox',
                                  'qwen3', 'mmcv_decoder', 'resnet18-coupled', 'torch_encoder',
                                  'cross_attention'])  # fmt: skip
def test_predicted_params_are_the_slim_model_s(name):
    case = BY_NAME[name]
    cost = build(BUDGETS, dict(type='params'), '').cost(case.dense(), case.groups(), {})
    assert cost.total(sizes(case.groups())) == case.count({})
    for level in ('half', 'one'):
        kept = {n: len(k) for n, k in case.state(level).kept.items()}
        assert cost.total(torch.tensor(list(kept.values()))) == case.count(kept)


@pytest.mark.parametrize('name', ['vit-layers', 'llama-gqa', 'llama-layers', 'opt', 'neox',
                                  'qwen3', 'mmcv_decoder', 'torch_encoder', 'cross_attention'])  # fmt: skip
def test_predicted_flops_are_the_slim_model_s(name):
    from projects.prune_plugin.methods.budgets import flops_cost

    case = BY_NAME[name]
    example = (case.inputs(), {})
    cost = flops_cost(case.dense(), case.groups(), example)
    for level in ('all', 'half', 'one'):
        state = case.state(level)
        kept = torch.tensor([len(state.kept[g.name]) for g in case.groups()])
        expected = sum(module_flops(slim(case.dense(), state), example).values())
        assert cost.total(kept) == pytest.approx(expected, rel=1e-9), level


@pytest.mark.parametrize('kind', ['params', 'flops'])
def test_marginal_is_a_difference(kind):
    case = BY_NAME['vit']
    cost = build(BUDGETS, dict(type=kind), '').cost(case.dense(), case.groups(), PROFILE)
    counts = sizes(case.groups()) - 1
    for g in range(len(counts)):
        fewer = counts.clone()
        fewer[g] -= 1
        difference = cost.total(counts) - cost.total(fewer)
        assert float(cost.marginal(counts)[g]) == pytest.approx(difference)


@pytest.mark.parametrize('row', BUDGET_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
@pytest.mark.parametrize('bad', [-0.1, 1.0, 1.5, 0, 'abc', None, True, float('nan'), [0.3]])
def test_bad_ratios_are_refused(row, bad):
    with pytest.raises(UserError, match=r'prune_cfg\.budget\.ratio is .*fraction removed'):
        StructuredPruner(budget={**row, 'ratio': bad})


@pytest.mark.parametrize('allocator', ALLOCATOR_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
@pytest.mark.parametrize('row', BUDGET_ROWS, ids=lambda r: '-'.join(map(str, r.values())))
def test_unreachable_budgets_are_refused(row, allocator, steady_clock):
    case, dense = BY_NAME['vit'], BY_NAME['vit'].dense()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    pruner = StructuredPruner(
        case.units, allocator=allocator, budget={**row, 'ratio': 0.99}, min_keep=3, profile=PROFILE
    )
    with pytest.raises(UserError, match=r'prune_cfg.budget.ratio is 0.99, but .* at most 0\.\d+'):
        pruner.plan(dense)
    after = dense.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_what_a_refusal_calls_possible_is_possible():
    case = BY_NAME['vit']
    with pytest.raises(UserError) as refused:
        StructuredPruner(case.units, budget=dict(type='params', ratio=0.95)).plan(case.dense())
    most = float(str(refused.value).split('at most ')[1].split()[0])
    StructuredPruner(case.units, budget=dict(type='params', ratio=most - 1e-3)).plan(case.dense())


@pytest.mark.parametrize('round_to', [4, 8, 64])
def test_round_to(round_to):
    case = BY_NAME['vit']
    pruner = StructuredPruner(
        case.units, budget=dict(type='params', ratio=0.3), round_to=round_to, min_keep=1
    )
    plan = pruner.plan(case.dense())
    for group in plan.groups:
        kept = len(plan.state.kept[group.name])
        assert kept == group.size or (kept % round_to == 0 and kept > 0)
    assert count_params(slim(case.dense(), plan.state)) <= 0.7 * count_params(case.dense())


def test_min_keep_counts_layers_over_the_model():
    case = BY_NAME['vit-layers']
    budget = dict(type='units', ratio=0.5)
    plan = StructuredPruner(case.units, budget=budget, min_keep=2).plan(case.dense())
    assert sum(len(kept) for kept in plan.state.kept.values()) == 2
    with pytest.raises(UserError, match='at most 0.25'):
        StructuredPruner(case.units, budget=budget, min_keep=3).plan(case.dense())


def test_flops_and_latency_need_an_example_input():
    case = BY_NAME['vit']
    for kind in ('flops', 'latency'):
        pruner = StructuredPruner(case.units, budget=dict(type=kind, ratio=0.3))
        with pytest.raises(
            UserError, match='needs an example input: set prune_cfg.profile.input_shape'
        ):
            pruner.plan(case.dense())


@pytest.mark.parametrize('kind', ['flops', 'latency'])
def test_a_plan_s_example_is_what_runs(kind, steady_clock):
    case = BY_NAME['vit']
    dense, images = case.dense(), torch.randn(3, 3, 32, 32)
    plan = StructuredPruner(case.units, budget=dict(type=kind, ratio=0.3)).plan(
        dense, example_inputs=images
    )
    before, after = flops_of(dense), flops_of(slim(case.dense(), plan.state))
    assert 0.28 <= 1 - after / before < 0.35
    with torch.no_grad():
        cost = plan.scored.cost.total(sizes(plan.groups))
    assert cost == pytest.approx(3 * before / (1e6 if kind == 'latency' else 1))


def test_latency_refuses_units_that_do_not_run(steady_clock):
    model = BY_NAME['vit'].dense()
    model.spare = tiny.timm_vit(depth=1)
    pruner = StructuredPruner(
        BY_NAME['vit'].units, budget=dict(type='latency', ratio=0.3), profile=PROFILE
    )
    with pytest.raises(UserError, match=r'spare\.blocks\.0\.\w+ did not run on the example input'):
        pruner.plan(model)


@pytest.mark.parametrize('seconds', [0, -1, float('nan'), float('inf'), 'x', True])
def test_latency_refuses_times_that_are_none(seconds):
    with pytest.raises(UserError, match=r'prune_cfg\.budget\.seconds is .*must be a number > 0'):
        StructuredPruner(budget=dict(type='latency', ratio=0.3, seconds=seconds))


def test_latency_is_measured_where_the_model_is_as_the_profile_says(monkeypatch):
    """Every timed call: on the model's device, with the batch and the threads asked for."""
    seen = []

    def watched(models, example, num_threads=1, **_):
        (values,) = example[0]
        seen.append((tuple(values.shape), values.device, num_threads))
        return flops_as_time([lambda m=m: m(*example[0]) for m in models])

    monkeypatch.setattr(timing, 'model_latency', watched)
    profile = dict(input_shape=(3, 32, 32), batch_size=5, num_threads=3)
    dense = BY_NAME['vit'].dense()
    StructuredPruner(
        BY_NAME['vit'].units, budget=dict(type='latency', ratio=0.3), profile=profile
    ).plan(dense)
    *modules, whole, corrected = seen
    assert [(device, threads) for _, device, threads in modules] == [
        (torch.device('cpu'), 3)
    ] * 2, 'attention and MLPs, each timed once, as all layers are alike'
    assert all(shape[0] == 5 for shape, *_ in modules)
    assert whole == corrected == ((5, 3, 32, 32), next(dense.parameters()).device, 3)


@pytest.mark.parametrize('share', [0.45, 0.6, 1.0, 1.5])
def test_what_modules_save_among_others_is_what_counts(monkeypatch, share, steady_clock):
    """A whole model that saves another share of what its modules save when they are alone."""

    def whole_time(models, example, **_):
        dense, *others = flops_as_time([lambda m=m: m(*example[0]) for m in models])
        return [dense, *(dense - share * (dense - time) for time in others)]

    monkeypatch.setattr(timing, 'model_latency', whole_time)
    case, dense = BY_NAME['vit'], BY_NAME['vit'].dense()
    budget = dict(type='latency', ratio=0.3, points=9)
    plan = StructuredPruner(case.units, budget=budget, profile=PROFILE).plan(dense)
    before, after = flops_of(dense), flops_of(slim(case.dense(), plan.state))
    assert share * (1 - after / before) == pytest.approx(0.3, abs=0.03)


def test_latency_measured_for_real():
    """Sanity alone: times are positive, grow with the width, and the plan removes something."""
    case, dense = BY_NAME['vit'], BY_NAME['vit'].dense()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    budget = dict(type='latency', ratio=0.05, seconds=0.02, points=3)
    pruner = StructuredPruner(case.units, budget=budget, profile=PROFILE)
    plan = pruner.plan(dense)
    assert all(torch.equal(dense.state_dict()[name], tensor) for name, tensor in before.items())
    assert (plan.cost > 0).all()
    assert plan.state.reduced
    assert torch.isfinite(case.run(mask(dense, plan.state))).all()


@pytest.mark.parametrize(
    ('size', 'least', 'points', 'round_to', 'expected'),
    [
        (9, 0, 5, 1, [1, 3, 5, 7, 9]),
        (64, 1, 5, 8, [16, 32, 48, 64]),
        (60, 1, 3, 8, [32, 60]),
        (8, 1, 5, 8, [1, 8]),
        (3, 0, 5, 8, [0, 3]),
        (1, 0, 5, 1, [0, 1]),
        (4, 4, 5, 1, [4]),
    ],
)
def test_latency_is_measured_at_multiples(size, least, points, round_to, expected):
    group = UnitGroup('g', 'mlp', size, (), least=least)
    assert layer_shapes.measured_counts(group, points, round_to).tolist() == expected


@pytest.mark.parametrize(('example', 'samples'), [(None, 1), (torch.zeros(4, 3, 32, 32), 4)])
def test_flops_are_those_of_one_sample_or_of_the_example_that_was_given(example, samples):
    case = BY_NAME['resnet18-channel']
    model = case.dense()
    profile = dict(input_shape=(3, 32, 32))
    pruner = StructuredPruner(case.units, budget=dict(type='flops', ratio=0.3), profile=profile)
    assert pruner.plan(model, example_inputs=example).result.dense == samples * flops_of(model)


class Windows(nn.Module):
    """A language model in another, with windows of tokens as an example input."""

    def __init__(self, lm: nn.Module):
        super().__init__()
        self.lm = lm

    def forward(self, inputs: Tensor) -> Tensor:
        return self.lm(inputs, use_cache=False).logits

    def dummy_inputs(self, batch_size: int = 1) -> dict[str, Tensor]:
        return dict(inputs=torch.zeros(batch_size, 8, dtype=torch.long))


@pytest.mark.parametrize('round_to', [1, 8])
def test_latency_of_modules_that_are_replaced_when_they_are_empty(round_to, steady_clock):
    """As transformers' attention is."""
    case = BY_NAME['llama-gqa']
    dense = Windows(case.dense()).eval()
    budget = dict(type='latency', ratio=0.1, seconds=0.01, points=2)
    pruner = StructuredPruner(case.units, dict(type='L1'), budget=budget, round_to=round_to)
    plan = pruner.plan(dense)
    assert any(group.emptied for group in plan.groups)
    assert plan.result.achieved >= 0.1
