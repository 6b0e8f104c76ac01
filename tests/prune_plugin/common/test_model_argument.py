"""What is given as a model is a module whose weights are there, or is refused in one sentence."""

from pathlib import Path

import pytest
import torch
from torch import nn

from projects.prune_plugin import (
    Exports,
    UserError,
    build_pruner,
    export,
    load_weights,
    mask,
    named_tensors,
    product_cost,
    slim,
    uncovered,
)

INPUT = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
UNITS = build_pruner(dict(budget=dict(ratio=0.3)))
WEIGHTS = build_pruner(dict(type='WeightPruner', budget=dict(ratio=0.3)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


PLANS = {pruner: pruner.plan(mlp()) for pruner in (UNITS, WEIGHTS)}
GROUPS, STATE = PLANS[UNITS].groups, PLANS[UNITS].state
TAKERS = {
    'slim': lambda m: slim(m, STATE),
    'mask': lambda m: mask(m, STATE),
    'uncovered': lambda m: uncovered(m, GROUPS),
    'named_tensors': named_tensors,
    'load_weights': lambda m: load_weights(m, {'state_dict': {}}, 'a.pth'),
    'product_cost': lambda m: product_cost(m, GROUPS),
    'export': lambda m: export({}, None, Exports(), m),
    **{
        f'{type(p).__name__}.{name}': getattr(p, name)
        for p in PLANS
        for name in ('check', 'comparison', 'discover', 'find', 'plan', 'score', 'select')
    },
    **{
        f'{type(p).__name__}.plan_from': lambda m, p=p: p.plan_from(m, PLANS[p].scored)
        for p in PLANS
    },
    **{f'{type(p).__name__}.apply': lambda m, p=p: p.apply(m, PLANS[p]) for p in PLANS},
}
NO_MODELS = [
    (None, 'the model is None; it must be a torch.nn.Module$'),
    (nn.Linear, 'the model is the class Linear; it must be a torch.nn.Module, an instance of it'),
    (mlp().state_dict(), 'is a OrderedDict; it must be a torch.nn.Module, with these weights'),
    ('a.pth', r"is 'a.pth'; it must be a torch.nn.Module, such as load_model\(cfg, path\).model"),
    (Path('a.pth'), "is 'a.pth'; it must be a torch.nn.Module"),
    (mlp, 'is a function; it must be a torch.nn.Module'),
]


@pytest.mark.parametrize(('given', 'message'), NO_MODELS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize('taker', TAKERS)
def test_what_is_no_model_is_refused(taker, given, message):
    if given is None and taker == 'export':
        return  # the checkpoint is loaded
    with pytest.raises(UserError, match=message):
        TAKERS[taker](given)


@pytest.mark.parametrize('taker', ['slim', 'StructuredPruner.plan', 'WeightPruner.plan'])
@pytest.mark.parametrize('lazy', [nn.LazyLinear(16), nn.Sequential(nn.LazyBatchNorm1d())])
def test_lazy_layers_are_to_be_called_first(taker, lazy):
    model = nn.Sequential(lazy, nn.ReLU(), nn.Linear(16, 4))
    with pytest.raises(UserError, match='^0.* has no shape before Lazy.*; call the model once'):
        TAKERS[taker](model)


def test_a_lazy_model_that_was_called_is_pruned():
    model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(4))
    model(INPUT)
    assert UNITS.plan(model).groups


def meta_mlp() -> nn.Module:
    with torch.device('meta'):
        return mlp()


def test_an_example_on_the_meta_device():
    with pytest.raises(
        UserError, match='example_inputs are on the meta device, but the model is not'
    ):
        UNITS.plan(mlp(), example_inputs=INPUT.to('meta'))


@pytest.mark.parametrize('criterion', ['L1', 'L2', 'Taylor'])
@pytest.mark.parametrize('example', [None, INPUT])
def test_criteria_that_read_weights_say_so_on_the_meta_device(criterion, example):
    pruner = build_pruner(dict(criterion=dict(type=criterion), budget=dict(ratio=0.3)))
    said = r"0.* is on the meta device and has no values, but .*criterion=dict\(type='Random'\)"
    with pytest.raises(UserError, match=said):
        pruner.plan(meta_mlp(), [INPUT], loss=lambda m, b: m(b).mean(), example_inputs=example)


@pytest.mark.parametrize('example', [None, INPUT])
def test_random_plans_on_the_meta_device(example):
    pruner = build_pruner(dict(criterion=dict(type='Random'), budget=dict(ratio=0.3)))
    plan = pruner.plan(meta_mlp(), example_inputs=example)
    assert slim(meta_mlp(), plan.state)[0].out_features == 16 - len(plan.state.removed('0'))


def test_no_zeros_are_set_on_the_meta_device():
    model = meta_mlp()
    with pytest.raises(UserError, match='0.weight is on the meta device.*; load the weights first'):
        WEIGHTS.apply(model, WEIGHTS.plan(model))
