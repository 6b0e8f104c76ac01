"""Refitting one layer, against numpy in float64."""

from copy import deepcopy

import numpy as np
import pytest
import refitting
import torch
from torch import nn

from projects.prune_plugin.calibration.layer_inputs import weight_matrix
from projects.prune_plugin.methods.compensation import LeastSquares
from projects.prune_plugin.methods.compensation.least_squares import refit


@pytest.mark.parametrize('damping', [1e-4, 0.01, 1.0])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('layer', ['linear', 'conv'])
def test_as_numpy_solves_the_stacked_system(layer, bias, damping):
    torch.manual_seed(1)
    if layer == 'linear':
        module, shape = nn.Linear(12, 5, bias=bias), (9, 12)
    else:
        module, shape = nn.Conv2d(12, 5, 3, 2, 1, bias=bias), (2, 12, 7, 6)
    mixing = torch.randn(12, 12)
    inputs = [(torch.randn(shape).movedim(1, -1) @ mixing + 0.5).movedim(-1, 1) for _ in range(3)]
    gone = [0, 3, 4, 11]
    expected = refitting.solved(
        module, np.concatenate([refitting.rows_of(module, x) for x in inputs]), gone, damping
    )
    taps = 1 if layer == 'linear' else 9
    keep = torch.ones(12, taps, dtype=torch.bool)
    keep[gone] = False
    model = nn.Sequential(module)
    with torch.no_grad():
        LeastSquares(damping).refit_layers(model, ('0',), inputs, {'0': keep.flatten()})
    weight = weight_matrix(module).double().numpy()
    scale = np.abs(expected[0]).max()
    np.testing.assert_allclose(weight, expected[0], atol=2e-3 * scale)
    assert not weight[:, ~keep.flatten().numpy()].any()
    if bias:
        np.testing.assert_allclose(module.bias.detach().double(), expected[1], atol=2e-3 * scale)


def test_refit_by_itself():
    torch.manual_seed(2)
    x, weight, keep = torch.randn(30, 8), torch.randn(3, 8), torch.arange(8) % 3 > 0
    new = refit(weight, x.T @ x, keep, 0.05, 'layer')
    own = x[:, keep].double().numpy()
    held = np.sqrt(0.05 * np.square(own).sum(0).mean()) * np.eye(own.shape[1])
    target = np.concatenate([(x @ weight.T).double(), held @ weight[:, keep].double().numpy().T])
    expected = np.linalg.lstsq(np.concatenate([own, held]), target, rcond=None)[0].T
    np.testing.assert_allclose(new[:, keep], expected, atol=1e-5)
    assert not new[:, ~keep].any() and new.dtype == torch.float32


def test_nothing_kept_and_everything_kept():
    torch.manual_seed(3)
    x, layer = torch.randn(20, 6) + 1, nn.Linear(6, 4)
    mean = layer(x).mean(0).detach()
    before = layer.weight.detach().clone()
    with torch.no_grad():
        every = torch.ones(6, dtype=torch.bool)
        LeastSquares().refit_layers(nn.Sequential(layer), ('0',), [x], {'0': every})
        assert torch.equal(layer.weight, before)
        LeastSquares().refit_layers(nn.Sequential(layer), ('0',), [x], {'0': ~every})
    assert not layer.weight.any()
    torch.testing.assert_close(layer.bias.detach(), mean)
    assert not refit(before, x.T @ x, ~every, 0.01, 'layer').any()


def test_the_mean_output_stays_whatever_the_damping():
    torch.manual_seed(4)
    x, layer = 100 + torch.randn(50, 6), nn.Linear(6, 4)
    before = layer(x).mean(0).detach()
    keep = torch.arange(6) > 2
    with torch.no_grad():
        LeastSquares(100.0).refit_layers(nn.Sequential(layer), ('0',), [x], {'0': keep})
    torch.testing.assert_close(layer(x).mean(0).detach(), before, rtol=1e-4, atol=1e-3)


def test_damping_holds_the_weights_where_they_were():
    torch.manual_seed(5)
    x, weight, keep = torch.randn(30, 8) + 1, torch.randn(3, 8), torch.arange(8) % 2 > 0
    moves = [
        float((refit(weight, x.T @ x, keep, d, 'layer') - weight * keep).norm())
        for d in (1e-3, 0.1, 10.0, 1e6)
    ]
    assert moves == sorted(moves, reverse=True) and moves[-1] < 1e-4 < moves[0]


def test_inputs_that_never_change_and_too_few_rows():
    """A Gram matrix without full rank is damped; features always zero keep their weights."""
    torch.manual_seed(6)
    for rows in (1, 3):
        x = torch.randn(rows, 8)
        x[:, 1], x[:, 2], x[:, 5] = 3.0, 0.0, 0.0
        for bias in (False, True):
            layer = nn.Linear(8, 4, bias=bias)
            before, target = deepcopy(layer).requires_grad_(False), layer(x).detach()
            keep = torch.arange(8) < 6
            with torch.no_grad():
                LeastSquares().refit_layers(nn.Sequential(layer), ('0',), [x], {'0': keep})
            assert bool(layer.weight.isfinite().all())
            torch.testing.assert_close(layer.weight[:, 2].detach(), before.weight[:, 2])
            assert (layer(x) - target).norm() < 0.2 * (before(x * keep) - target).norm()
