"""Where no unit is found, the message says what is the case, and advises nothing that was done."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from projects.prune_plugin import UserError, build_pruner

INPUT = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


def planned(model: nn.Module, example=None, **cfg):
    torch.manual_seed(0)
    pruner = build_pruner({**dict(budget=dict(type='params', ratio=0.3)), **cfg})
    return pruner.plan(model.eval(), example_inputs=example)


class Net(nn.Module):
    """Two linear layers, of a class that no finder knows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.b(self.a(x).relu())


@pytest.mark.parametrize('example', [None, INPUT])
@pytest.mark.parametrize(
    ('model', 'said'),
    [
        (nn.Identity(), 'Identity has no parameters'),
        (nn.ReLU(), 'ReLU has no parameters'),
        (nn.Sequential(), 'Sequential has no parameters'),
        (nn.BatchNorm1d(8), 'BatchNorm1d has vectors and embeddings alone'),
        (nn.Embedding(9, 4), 'Embedding has vectors and embeddings alone'),
    ],
)
def test_a_model_without_weights(model, said, example):
    if isinstance(model, nn.Embedding) and example is not None:
        example = example.long()
    with pytest.raises(UserError, match=f'^the model has no units to prune: {said}$'):
        planned(model, example)
    if not isinstance(model, nn.Embedding):
        with pytest.raises(
            UserError, match='^the model has no weights to prune: .* has no linear, '
        ):
            build_pruner(dict(type='WeightPruner')).plan(model)


def test_an_unknown_model_on_the_meta_device():
    with pytest.raises(UserError, match='others are not looked for on the meta device'):
        planned(Net().to('meta'), INPUT, criterion=dict(type='Random'))


def test_the_model_itself_has_a_name_in_refusals():
    model = nn.Sequential(weight_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 4))
    with pytest.raises(
        UserError, match='; Sequential: 0.weight is computed from other parameters;'
    ):
        planned(model)


class Unread(Net):
    """A parameter of its own that the example doesn't reach."""

    def __init__(self):
        super().__init__()
        self.other = nn.Parameter(torch.randn(3, 16))

    def forward(self, x, other=False):
        x = self.a(x).relu()
        return x @ self.other.t() if other else self.b(x)


def test_a_parameter_of_the_model_itself_is_named():
    with pytest.raises(
        UserError, match='a: other may read it, which the example input does not re'
    ):
        planned(Unread(), INPUT)


class Shared(nn.Module):
    """The weight of a known module is the model's own, too."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.own = self.mlp[0].weight

    def forward(self, x):
        return self.mlp(x)


def test_a_tensor_that_the_model_itself_shares():
    with pytest.raises(
        UserError, match='own is one of its tensors, too, and Shared would not follow'
    ):
        planned(Shared())


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_weights_that_are_no_numbers_are_named(value):
    model = Net()
    model.b.weight.data[0, 0] = float(value)
    with pytest.raises(UserError, match='^b.weight holds NaN or infinite numbers; the checkpoint'):
        planned(model, INPUT)


def test_outputs_that_overflow():
    model = Net()
    for layer in (model.a, model.b):
        layer.weight.data *= 1e30
    with pytest.raises(UserError, match='^the output of Net on the example input holds NaN or inf'):
        planned(model, INPUT)


class Block(nn.Module):
    """A layer of a residual stream: attention, then an MLP."""

    def __init__(self, post: bool):
        super().__init__()
        self.norm, self.post, self.heads = nn.LayerNorm(16), post, 4
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        y = x if self.post else self.norm(x)
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(y).chunk(3, -1)
        )
        added = (q @ k.mT).softmax(-1) @ v
        x = x + self.out(added.transpose(1, 2).flatten(2))
        return self.norm(x) if self.post else x


def stream(post: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(post) for _ in range(3)), nn.Linear(16, 2))


def test_a_layer_that_masks_to_zeros():
    units = [dict(type='PreNormLayers')]
    with pytest.raises(UserError, match=r'else \(masked, it gives next to nothing\)\); remove'):
        planned(stream(post=True), TOKENS, units=units)


def test_whole_layers_of_weights_that_are_no_numbers():
    model = stream(post=True)
    model[1].norm.weight.data[0] = float('nan')
    with pytest.raises(UserError, match='^1.norm.weight holds NaN or infinite numbers'):
        planned(model, TOKENS, units=[dict(type='PreNormLayers')])


def test_discovered_units_are_chosen_by_include():
    found = planned(stream(), TOKENS)
    assert {group.kind for group in found.groups} == {'attention'}
    with pytest.raises(
        UserError, match='AttentionHeads finds nothing .*; prune_cfg.include then cho'
    ):
        planned(stream(), TOKENS, units=[dict(type='AttentionHeads')])
    chosen = planned(stream(), TOKENS, include=['0'], budget=dict(type='units', ratio=0.3))
    assert [group.name for group in chosen.groups] == ['0']
