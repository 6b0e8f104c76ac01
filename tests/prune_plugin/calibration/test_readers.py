"""Weights that no linear layer or convolution holds: what they read, and gradients of their masks."""

import copy

import pytest
import torch
from refitting import Batches
from torch import nn

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.calibration.readers import ObservedWeights


class Linears(nn.Module):
    """Hidden neurons, read by a linear layer."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x):
        return self.down(self.up(x).relu())


class Bare(nn.Module):
    """The same as a product with a parameter, in one of several ways."""

    def __init__(self, linears: Linears, how: str):
        super().__init__()
        self.up, self.how = linears.up, how
        self.down = nn.Parameter(linears.down.weight.detach().t().clone())
        self.bias = linears.down.bias

    def forward(self, x):
        h = self.up(x).relu()
        if self.how == 'addmm':
            return torch.addmm(self.bias, h.flatten(0, -2), self.down).view(*x.shape)
        if self.how == 'einsum':
            return torch.einsum('bnh,hd->bnd', h, self.down) + self.bias
        if self.how == 'transposed':
            return nn.functional.linear(h, self.down.t(), self.bias)
        return h @ self.down + self.bias


class Hidden(nn.Module):
    """Reads its weight in a way that can't be followed."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 20), nn.Parameter(torch.randn(20, 12))

    def forward(self, x):
        return torch.tensordot(self.up(x).relu(), self.down, dims=1)


def scores(model: nn.Module, x: torch.Tensor, criterion: str) -> torch.Tensor:
    """Scores of the only group."""
    pruner = build_pruner(dict(criterion=dict(type=criterion), budget=dict(type='units')))
    data = Batches([x, 2 * x, x.flip(0)])

    def loss(model, batch):
        return model(batch).square().mean()

    plan = pruner.plan(model, data=lambda settings: data, loss=loss, example_inputs=x)
    (score,) = plan.importance
    return score


@pytest.mark.parametrize('criterion', ['Wanda', 'Activation', 'Fisher', 'Taylor'])
@pytest.mark.parametrize('how', ['addmm', 'einsum', 'transposed', 'matmul'])
def test_scores_are_those_of_a_linear_layer(criterion, how):
    torch.manual_seed(0)
    linears, x = Linears(), torch.randn(4, 6, 12)
    bare = Bare(copy.deepcopy(linears), how)
    expected = scores(linears, x, criterion)
    assert torch.allclose(scores(bare, x, criterion), expected, rtol=1e-4)
    assert all(p.grad is None and p.requires_grad for p in bare.parameters())


def test_frozen_weights_stay_frozen():
    torch.manual_seed(0)
    bare, x = Bare(Linears(), 'matmul').requires_grad_(False), torch.randn(4, 6, 12)
    assert bool((scores(bare, x, 'Fisher') > 0).any())
    assert not any(p.requires_grad for p in bare.parameters())


def test_what_cannot_be_observed_is_refused():
    torch.manual_seed(0)
    with pytest.raises(UserError, match='what down reads cannot be observed in this model; take'):
        scores(Hidden(), torch.randn(4, 6, 12), 'Wanda')
    assert bool((scores(Hidden(), torch.randn(4, 6, 12), 'Taylor') > 0).any())


def test_products_are_found_whatever_stands_left():
    weight, x = torch.randn(5, 7), torch.randn(3, 5)
    found = []
    with ObservedWeights({'w': (weight, 0)}, lambda *what: found.append(what)):
        x @ weight
        weight.t() @ x.t()
        x[:, 1:] @ weight[1:]
        x + 1
    assert [name for name, _, _ in found] == ['w'] * 3
    assert [columns.tolist() for _, columns, _ in found] == [list(range(5))] * 2 + [[1, 2, 3, 4]]
    assert torch.equal(found[0][2], x) and torch.equal(found[1][2], x)
    assert torch.equal(found[2][2], x[:, 1:])


def test_experts_by_what_they_add():
    """The mean over an expert's tokens of its weight times the norm of its output."""
    transformers = pytest.importorskip('transformers')
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        hidden_size=16, intermediate_size=24, num_local_experts=5, num_experts_per_tok=2
    )
    config._experts_implementation = 'eager'
    block = MixtralSparseMoeBlock(config).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.block, self.last = nn.Linear(16, 16), block, nn.Linear(16, 4)

        def forward(self, x):
            return self.last(self.block(self.first(x)))

    model, x = Model().eval(), torch.randn(2, 30, 16)
    pruner = build_pruner(
        dict(criterion=dict(type='Usage'), include=['block.gate'], budget=dict(type='units'))
    )
    plan = pruner.plan(
        model, data=lambda s: Batches([x]), loss=lambda m, b: m(b).sum(), example_inputs=x
    )
    with torch.no_grad():
        tokens = model.first(x).flatten(0, 1)
        _, weights, numbers = block.gate(tokens)
        for expert, score in enumerate(plan.importance[0].tolist()):
            rows, places = (numbers == expert).nonzero(as_tuple=True)
            gate, up = (tokens[rows] @ block.experts.gate_up_proj[expert].t()).chunk(2, -1)
            out = (nn.functional.silu(gate) * up) @ block.experts.down_proj[expert].t()
            norms = out.norm(dim=-1) * weights[rows, places]
            assert score == pytest.approx(float(norms.mean()), rel=1e-5)
