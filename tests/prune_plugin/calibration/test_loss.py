"""A loss of the caller's: its mistakes are told in one sentence, and what it raises stays visible."""

from functools import partial

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner, mmengine_loss
from projects.prune_plugin.calibration.loss import guarded

BATCHES = list(torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)))
GRADIENTS = ('Taylor', 'Fisher')
LAYERS = ('Wanda', 'SparseGPT')


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def mean(model, batch):
    return model(batch).square().mean()


def plan(method: str, data, loss):
    """Of a criterion or a sparsifier, applied where it reads the data only then."""
    if method == 'LeastSquares':
        pruner = build_pruner(dict(compensation=dict(type=method), budget=dict(ratio=0.3)))
    elif method in LAYERS:
        pruner = build_pruner(dict(type='WeightPruner', sparsifier=dict(type=method)))
    else:
        pruner = build_pruner(dict(criterion=dict(type=method), budget=dict(ratio=0.3)))
    model = mlp()
    made = pruner.plan(model, data, loss=loss)
    return pruner.apply(model, made, data, loss=loss)


@pytest.mark.parametrize('method', [*GRADIENTS, *LAYERS, 'LeastSquares', 'Activation'])
def test_what_is_no_function(method):
    with pytest.raises(UserError, match=r"^loss is 'mse'; it must be a function \(model, batch\)"):
        plan(method, BATCHES, 'mse')


@pytest.mark.parametrize('method', [*GRADIENTS, *LAYERS, 'LeastSquares', 'Activation'])
def test_what_the_model_raises_is_the_cause(method):
    said = r'fails on a batch of the calibration data \(RuntimeError: mat1'
    with pytest.raises(UserError, match=said) as refused:
        plan(method, [torch.randn(4, 9)], mean)
    assert type(refused.value.__cause__) is RuntimeError


def test_a_loss_of_one_argument():
    with pytest.raises(UserError, match=r'\(TypeError: .*takes 1 positional argument'):
        plan('Taylor', BATCHES, lambda model: model(BATCHES[0]).mean())


@pytest.mark.parametrize('method', GRADIENTS)
@pytest.mark.parametrize(
    ('loss', 'given'),
    [
        (lambda m, b: m(b), r'a tensor of shape \(4, 4\)'),
        (lambda m, b: m(b).mean().item(), r'-?0\.\d+'),
        (lambda m, b: None, 'None'),
    ],
)
def test_no_scalar_with_a_gradient(method, loss, given):
    with pytest.raises(UserError, match=rf'gives {given}; it must be a scalar tensor'):
        plan(method, BATCHES, loss)


def test_a_loss_without_its_gradient():
    with pytest.raises(UserError, match=r'comes without its gradient \(as after .detach\(\)\)'):
        plan('Taylor', BATCHES, lambda m, b: m(b).mean().detach())


def test_without_gradients_any_tensor_will_do():
    assert plan('Activation', BATCHES, lambda m, b: m(b)).state.reduced
    with pytest.raises(UserError, match='gives None; it must be'):
        plan('Activation', BATCHES, lambda m, b: None)


def test_refusals_and_lack_of_memory_are_handed_on():
    def no_memory(model, batch):
        raise torch.OutOfMemoryError('out of memory')

    with pytest.raises(torch.OutOfMemoryError):
        guarded(no_memory)(mlp(), BATCHES[0])
    own = partial(mmengine_loss, weights={})
    assert guarded(mmengine_loss) is mmengine_loss and guarded(own) is own


@pytest.mark.parametrize('method', [*LAYERS, 'LeastSquares'])
def test_apply_asks_for_its_own_loss(method):
    blocks = dict(type='WeightPruner', sparsifier=dict(type=method))
    if method == 'LeastSquares':
        blocks = dict(compensation=dict(type=method), budget=dict(ratio=0.3))
    pruner, model = build_pruner(blocks), mlp()
    made = pruner.plan(model, BATCHES, loss=mean)
    with pytest.raises(UserError, match=r'and apply\(model, plan, data, loss=...\), a function'):
        pruner.apply(model, made, BATCHES)
