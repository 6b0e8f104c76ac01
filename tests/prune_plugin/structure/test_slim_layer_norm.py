"""A slim layer norm is the dense one with zeros in place of the features that were removed."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from projects.prune_plugin.structure.modules import CONVERTERS, SlimLayerNorm

KEPT = torch.tensor([0, 3, 4, 8])


def dense_norm(bias: bool = True) -> nn.LayerNorm:
    norm = nn.LayerNorm(10, eps=1e-3, bias=bias)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(-1, 1)
    return norm


def slim_norm(dense: nn.LayerNorm, kept=KEPT) -> SlimLayerNorm:
    slim = SlimLayerNorm(deepcopy(dense))
    slim.weight = nn.Parameter(slim.weight[kept])
    if slim.bias is not None:
        slim.bias = nn.Parameter(slim.bias[kept])
    return slim


def padded(x, kept=KEPT):
    return x.new_zeros(*x.shape[:-1], 10).index_copy(-1, kept, x)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_equals_the_dense_norm_of_zero_padded_input(bias, dtype):
    dense = dense_norm(bias).to(dtype)
    slim = slim_norm(dense)
    x = (3 * torch.randn(2, 5, 4) + 1).to(dtype)
    out = slim(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, dense(padded(x))[..., KEPT])
    narrow = nn.functional.layer_norm(x, (4,), slim.weight, slim.bias, slim.eps)
    assert (out - narrow).abs().max() > 0.1  # a norm over what is left is another one


def test_gradients_are_those_of_the_dense_norm():
    dense = dense_norm()
    slim, x = slim_norm(dense), torch.randn(3, 4, requires_grad=True)
    weights = torch.randn(3, 4)
    found = torch.autograd.grad((slim(x) * weights).sum(), [x, slim.weight, slim.bias])
    loss = (dense(padded(x))[:, KEPT] * weights).sum()
    by_x, *others = torch.autograd.grad(loss, [x, dense.weight, dense.bias])
    torch.testing.assert_close(found, (by_x, *(grad[KEPT] for grad in others)))


@pytest.mark.parametrize('given', [torch.float32, torch.bfloat16])
def test_under_autocast_it_is_computed_in_full(given):
    dense = dense_norm()
    slim, x = slim_norm(dense), (torch.randn(64, 4) + 40).to(given)
    expected = dense(padded(x.float()))[:, KEPT]
    with torch.autocast('cpu', torch.bfloat16):
        out = slim(x)
        after = nn.Linear(4, 2)(out)
    assert out.dtype == given and after.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected.to(given))  # rounded once, at the end


def test_half_precision_models_stay_so():
    slim = slim_norm(dense_norm()).to(torch.bfloat16)
    x = torch.randn(5, 4, dtype=torch.bfloat16)
    assert slim(x).dtype == torch.bfloat16


def test_it_stands_in_place_of_the_dense_one():
    for bias in (True, False):
        dense = dense_norm(bias).eval()
        slim = CONVERTERS['SlimLayerNorm'](dense)
        assert slim.weight is dense.weight and slim.bias is dense.bias
        assert slim.state_dict().keys() == dense.state_dict().keys()
        assert not slim.training and (slim.eps, slim.dense_features) == (dense.eps, 10)
        assert CONVERTERS['SlimLayerNorm'](slim) is slim  # a second time, as it is
        x = torch.randn(4, 10)
        torch.testing.assert_close(slim(x), dense(x))
    assert '4 of 10' in repr(slim_norm(dense))


def test_what_goes_later_counts_as_zero_too():
    dense = dense_norm()
    again = slim_norm(dense)
    again.weight, again.bias = (nn.Parameter(p[1:3]) for p in (again.weight, again.bias))
    x = torch.randn(6, 2)
    left = KEPT[1:3]
    torch.testing.assert_close(again(x), dense(padded(x, left))[:, left])
