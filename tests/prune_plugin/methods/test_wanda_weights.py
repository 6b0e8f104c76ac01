"""Wanda for single weights against loops."""

import pytest
import textbook
import torch
from torch import nn

from projects.prune_plugin.methods.sparsifiers import Wanda
from projects.prune_plugin.methods.sparsifiers.wanda import keep_rows


def case(outputs: int = 9, width: int = 24):
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(width, outputs)
    layer.weight.data = torch.randn(outputs, width, generator=generator)
    scale = torch.rand(width, generator=generator) * 3
    return layer, [torch.randn(n, 5, width, generator=generator) * scale for n in (4, 2)]


def pruned(method, layer, inputs, ratio=0.5):
    weights = {'fc.weight': layer.weight.detach()}
    return method.prune(weights, method.statistic(layer, inputs), {'fc.weight': ratio})['fc.weight']


@pytest.mark.parametrize('ratio', [0.1, 1 / 3, 0.5, 0.9, 0.97])
def test_rows_as_by_loops(ratio):
    layer, inputs = case()
    weight, keep = pruned(Wanda(), layer, inputs, ratio)
    assert torch.equal(keep, textbook.wanda(layer.weight.data, inputs, ratio))
    assert torch.equal(weight, layer.weight.data * keep)
    assert ((~keep).sum(1) == round(ratio * 24)).all()


@pytest.mark.parametrize(('n', 'm'), [(2, 4), (4, 8), (1, 3)])
def test_patterns_as_by_loops(n, m):
    layer, inputs = case()
    _, keep = pruned(Wanda(f'{n}:{m}'), layer, inputs, 1 - n / m)
    assert torch.equal(keep, textbook.wanda(layer.weight.data, inputs, pattern=(n, m)))


def test_statistic_is_the_root_mean_square():
    layer, inputs = case()
    rows = torch.cat([x.reshape(-1, 24) for x in inputs]).double()
    found = Wanda().statistic(layer, inputs)
    assert torch.allclose(found, rows.square().mean(0).sqrt())


def test_ties_and_zeros_keep_the_count():
    for scores in (torch.zeros(5, 7), torch.ones(5, 7), torch.randint(0, 2, (5, 7)).float()):
        assert ((~keep_rows(scores, 0.4)).sum(1) == round(0.4 * 7)).all()


def test_unused_inputs_go_first():
    layer, inputs = case()
    for x in inputs:
        x[..., [2, 11]] = 0
    _, keep = pruned(Wanda(), layer, inputs, 0.1)
    assert not keep[:, [2, 11]].any() and int((~keep).sum()) == 9 * 2


def test_inputs_matter_and_not_the_weights_alone():
    layer, inputs = case()
    layer.weight.data.fill_(1.0)
    _, keep = pruned(Wanda(), layer, inputs)
    assert len({tuple(row) for row in keep.tolist()}) == 1  # every row by the inputs' norms
    norms = Wanda().statistic(layer, inputs)
    assert norms[keep[0]].min() >= norms[~keep[0]].max()


def test_one_row_as_a_single_vector():
    """A layer may be called with one vector."""
    layer, _ = case()
    x = torch.randn(24)
    assert torch.allclose(Wanda().statistic(layer, [x]), x.double().abs())
