"""ALPS: masks by ADMM that beat SparseGPT's, exact counts, patterns, and what was removed before."""

import pytest
import textbook
import torch
from test_sparsegpt import WIDTH, correlated, error_of, linear, pruned
from torch import nn

from projects.prune_plugin import UserError
from projects.prune_plugin.calibration.data import GivenBatches
from projects.prune_plugin.calibration.output_gradients import output_gradients
from projects.prune_plugin.methods.sparsifiers import ALPS, SparseGPT
from projects.prune_plugin.methods.sparsifiers.alps import admm
from projects.prune_plugin.methods.weight_masks import keep_largest


def by_definition(target, hessian, ratio, iterations, penalty):
    """The ADMM of Boza's paper in float64, a plain inverse in the place of a factor."""
    target, hessian = target.double(), hessian.double()
    scale = hessian.diagonal().sqrt()
    hessian = hessian / scale.outer(scale)
    inverse = torch.linalg.inv(hessian + penalty * torch.eye(len(hessian)))
    dense = target * scale
    fitted, dual = dense.clone(), torch.zeros_like(dense)
    for i in range(iterations):
        share = 1 - (1 - min(1, (i + 1) / (0.75 * iterations))) ** 3
        sparse = (fitted + dual) * keep_largest((fitted + dual).abs(), share * ratio)
        dual = dual + fitted - sparse
        fitted = (dense @ hessian + penalty * (sparse - dual)) @ inverse
    keep = keep_largest((fitted + dual).abs(), ratio)
    return (fitted + dual) * keep / scale, keep


@pytest.mark.parametrize('ratio', [0.5, 0.9])
@pytest.mark.parametrize('penalty', [0.3, 1.0])
def test_admm_by_definition(ratio, penalty):
    hessian, layer = textbook.hessian_of([correlated(90, WIDTH)]).float(), linear()
    target = layer.weight.detach()

    def keep_of(size, share):
        return keep_largest(size, share * ratio)

    weight, keep = admm(target, hessian, keep_of, 12, penalty)
    expected, mask = by_definition(target, hessian, ratio, 12, penalty)
    assert (keep == mask).float().mean() > 0.99  # ties within rounding
    both = keep & mask
    torch.testing.assert_close(weight[both].double(), expected[both], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ('ratio', 'pattern'), [(0.5, None), (0.7, None), (0.9, None), (0.5, '2:4')]
)
def test_loses_less_than_sparsegpt(ratio, pattern):
    errors = {ALPS: 0.0, SparseGPT: 0.0}
    for seed in range(3):
        inputs, layer = [correlated(150, WIDTH, seed=seed)], linear(seed=seed)
        hessian = textbook.hessian_of(inputs).double()
        for method in errors:
            weight, keep = pruned(method(pattern), {'a': layer}, inputs, ratio)['a']
            assert int((~keep).sum()) == round(ratio * keep.numel())
            assert (weight[~keep] == 0).all()
            errors[method] += error_of(weight, layer.weight.detach(), hessian)
    assert errors[ALPS] < errors[SparseGPT]


@pytest.mark.parametrize('pattern', [None, '2:4'])
def test_layers_that_share_an_input_keep_their_own_counts(pattern):
    inputs = [correlated(4, 20, WIDTH)]
    layers = {'q': linear(24, seed=1), 'k': linear(8, seed=2)}
    ratios = {'q': 0.5, 'k': 0.5 if pattern else 0.75}
    found = pruned(ALPS(pattern), layers, inputs, ratios)
    for name, (weight, keep) in found.items():
        assert weight.shape == layers[name].weight.shape
        assert int((~keep).sum()) == round(ratios[name] * keep.numel())


def test_what_was_removed_stays_removed():
    inputs, layer = [correlated(120, WIDTH)], linear()
    method = ALPS()
    statistic = method.statistic(layer, inputs)
    weights = {'a': layer.weight.detach()}
    _, first = method.prune(weights, statistic, {'a': 0.4})['a']
    weight, second = method.prune(weights, statistic, {'a': 0.8}, {'a': first})['a']
    assert not (second & ~first).any() and (weight[~second] == 0).all()


def test_inputs_that_say_nothing():
    for inputs in ([torch.zeros(5, WIDTH)], [torch.ones(3, WIDTH)]):
        weight, keep = pruned(ALPS(), {'a': linear()}, inputs, 0.9)['a']
        assert torch.isfinite(weight).all() and int((~keep).sum()) == round(0.9 * keep.numel())


def test_bad_values():
    for keys, said in (
        (dict(iterations=0), 'iterations is 0; it must be a whole number >= 1'),
        (dict(penalty=0), 'penalty is 0; it must be a number > 0'),
        (dict(targets='all'), "targets is 'all'; valid are layer, stream"),
    ):
        with pytest.raises(UserError, match=said):
            ALPS(**keys)
    with pytest.raises(UserError, match='NaN or infinite'):
        pruned(ALPS(), {'a': linear()}, [torch.full((4, WIDTH), torch.nan)])


# Outputs weighed by gradients


@pytest.mark.parametrize('method', [SparseGPT, ALPS])
def test_rows_that_matter_more_keep_more(method):
    inputs, layer = [correlated(150, WIDTH)], linear()
    one = method(refinement=15)
    statistic = one.statistic(layer, inputs)
    weights, ratios = {'a': layer.weight.detach()}, {'a': 0.6}
    scales = torch.ones(24)
    scales[:6] = 5
    even = one.prune(weights, statistic, ratios)['a'][1]
    weight, keep = one.prune(weights, statistic, ratios, output_weights={'a': scales})['a']
    assert int(keep.sum()) == int(even.sum())
    assert keep[:6].sum() > 1.3 * even[:6].sum() and keep[6:].sum() < even[6:].sum()
    # The common factor says nothing, and what is kept is fitted as without weights.
    again, same = one.prune(weights, statistic, ratios, output_weights={'a': 7 * scales})['a']
    assert torch.equal(keep, same)
    torch.testing.assert_close(again, weight, rtol=1e-3, atol=1e-4)
    hessian = textbook.hessian_of(inputs).double()
    solution = [
        torch.linalg.solve(hessian[k][:, k], hessian[k] @ w.double())
        for w, k in zip(weights['a'], keep, strict=True)
    ]
    for row, kept, exact in zip(weight, keep, solution, strict=True):
        torch.testing.assert_close(row[kept].double(), exact, rtol=0.05, atol=0.05)


def test_gradients_of_outputs_by_definition():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Conv1d(3, 3, 1), nn.Linear(7, 2)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    batches = [torch.randn(2, 3, 5) for _ in range(4)]

    def loss(model, x):
        return model(x).square().sum()

    found = output_gradients(model, ['0', '3'], GivenBatches(batches, 0), loss, 0.5)
    sums, rows = {'0': 0, '3': 0}, 0
    for x in batches[:2]:
        first = (x @ model[0].weight.T + model[0].bias).requires_grad_()
        last = model[3](model[2](first.tanh()))
        last.retain_grad()
        last.square().sum().backward()
        sums['0'] += first.grad.flatten(0, 1).square().sum(0)
        sums['3'] += last.grad.flatten(0, 1).square().sum(0)
        rows += 6
    for name, total in sums.items():
        torch.testing.assert_close(found[name].float(), (total / rows).sqrt())
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(UserError, match='does not depend on the outputs of 3'):
        output_gradients(
            model,
            ['0', '3'],
            GivenBatches(batches, 0),
            lambda m, x: m[0](x).sum() + 0 * m(x).sum(),
            1,
        )
