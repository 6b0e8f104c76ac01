"""Readers that make up for a part of what the residual stream has lost before them."""

from copy import deepcopy

import pytest
import torch
from cases import BY_NAME
from refitting import Batches, first_input
from test_least_squares import READERS, data_of, run
from torch import nn

from projects.prune_plugin import UserError
from projects.prune_plugin.calibration.residual_streams import find_streams
from projects.prune_plugin.methods.compensation import LeastSquares

#: By family: what reads the stream before each of its readers.
STREAMS = {
    'vit': ('norm1', 'norm2'),
    'llama-gqa': ('input_layernorm', 'post_attention_layernorm'),
    'opt': ('self_attn_layer_norm', 'final_layer_norm'),
}


def stream_before(family: str, path: str) -> str:
    """The norm of a reader's block that reads the stream."""
    attention, feed_forward = STREAMS[family]
    parts = path.split('.')
    block = '.'.join(parts[: next(i for i, p in enumerate(parts) if p.isdigit()) + 1])
    return f'{block}.{attention if "attn" in path else feed_forward}'


def targets_by_definition(family, case, state, batches, strength, damping):
    """Refit each reader to its dense output plus a share of the stream's loss, by float64 lstsq."""
    model, dense = case.dense(), case.dense()
    paths, width = READERS[family]
    by_reader = {
        c.name.rpartition('.')[0]: g for g in case.groups() for c in g.cuts if c.side == 'out'
    }
    for path in paths:
        group, layer = by_reader[path], model.get_submodule(path)
        each = width if group.kind == 'attention' else 1
        gone = {u * each + i for u in state.removed(group.name).tolist() for i in range(each)}
        stay = [i for i in range(layer.weight.shape[1]) if i not in gone]
        rows, targets = [], []
        norm, own = stream_before(family, path), dense.get_submodule(path)
        for batch in batches:
            read = lambda net, name: first_input(net, name, lambda: net(*batch)).double()  # noqa: B023, E731
            x, dense_x = read(model, path), read(dense, path)
            x, dense_x = x.flatten(0, -2), dense_x.flatten(0, -2)
            h, dense_h = (read(net, norm).reshape(len(x), -1) for net in (model, dense))
            weight, bias = own.weight.double(), 0 if own.bias is None else own.bias.double()
            here, there = x @ weight.T + bias, dense_x @ weight.T + bias
            rows.append(x)
            targets.append(here + strength * ((dense_h + there) - (h + here)))
        x, y = torch.cat(rows), torch.cat(targets).detach()
        seen = x[:, stay]
        mean = seen.mean(0) if layer.bias is not None else 0
        origin = y.mean(0) if layer.bias is not None else 0
        # The pull towards the old weights is relative to the spread of all kept inputs.
        pull = (damping * (seen - mean).square().sum(0).mean()).sqrt() * torch.eye(
            len(stay)
        ).double()
        left = torch.cat([seen - mean, pull])
        right = torch.cat([y - origin, pull @ layer.weight.double()[:, stay].T])
        found = torch.linalg.lstsq(left, right).solution.T
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[:, stay] = found.float()
            if layer.bias is not None:
                layer.bias.copy_(origin - found @ mean)
    return model


@pytest.mark.parametrize('family', STREAMS)
@pytest.mark.parametrize('strength', [0.5, 1.0])
def test_targets_are_the_dense_streams_by_definition(family, strength):
    case = BY_NAME[family]
    state, data = case.state('half'), data_of(case)
    found = case.dense()
    LeastSquares(0.1, dense_targets=strength).apply(found, state, data, run)
    expected = targets_by_definition(family, case, state, data.batches, strength, 0.1)
    plain = case.dense()
    LeastSquares(0.1, dense_targets=0).apply(plain, state, data, run)
    for path in READERS[family][0]:
        for name in ('weight', 'bias'):
            ours, theirs = (getattr(m.get_submodule(path), name) for m in (found, expected))
            if ours is not None:
                scale = float(theirs.abs().max())
                torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-3 * scale, msg=path)
    last = READERS[family][0][-1]
    assert not torch.allclose(found.get_submodule(last).weight, plain.get_submodule(last).weight)


def test_the_first_reader_has_lost_nothing_but_its_own_units():
    """Before the first reader the stream is the dense one, so its targets are its dense outputs."""
    case = BY_NAME['llama-gqa']
    models = [case.dense(), case.dense()]
    for model, strength in zip(models, (0.0, 1.0), strict=True):
        LeastSquares(0.1, dense_targets=strength).apply(
            model, case.state('half'), data_of(case), run
        )
    first, second = READERS['llama-gqa'][0][:2]
    weights = [[m.get_submodule(p).weight for p in (first, second)] for m in models]
    torch.testing.assert_close(weights[0][0], weights[1][0])
    assert not torch.allclose(weights[0][1], weights[1][1])


def test_a_share_of_the_batches_runs_through_the_dense_model():
    case = BY_NAME['llama-gqa']
    data = data_of(case, 4)
    part, alone = case.dense(), case.dense()
    LeastSquares(0.1, dense_targets=1, dense_share=0.5).apply(part, case.state('half'), data, run)
    doubled = Batches(data.batches[:2] + data.batches[:2])
    LeastSquares(0.1, dense_targets=1).apply(alone, case.state('half'), doubled, run)
    every = case.dense()
    LeastSquares(0.1, dense_targets=1).apply(every, case.state('half'), data, run)
    path = READERS['llama-gqa'][0][-1]
    weights = [m.get_submodule(path).weight for m in (part, alone, every)]
    assert not torch.allclose(weights[0], weights[1]) and not torch.allclose(weights[0], weights[2])


# What is a stream


class Block(nn.Module):
    """x + scale * linear(norm(x)), and what may come between."""

    def __init__(self, kind: str):
        super().__init__()
        self.norm, self.linear, self.next = nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.kind, self.scale = kind, nn.Parameter(torch.linspace(0.5, 2, 8))
        self.norm_after = nn.LayerNorm(8)

    def forward(self, x):
        y = self.linear(self.norm(x))
        if self.kind == 'scaled':
            y = self.scale * y
        elif self.kind == 'normed':
            y = self.norm_after(y)
        elif self.kind == 'activated':
            y = y.relu()
        elif self.kind == 'beside':
            y = y + x.tanh()
        elif self.kind == 'in place':
            x.mul_(2)
        return self.next(x + y)


@pytest.mark.parametrize(
    ('kind', 'known'),
    [('plain', True), ('scaled', True), ('normed', False), ('activated', False), ('beside', False)],
)
def test_a_stream_is_what_the_output_is_added_to(kind, known):
    torch.manual_seed(0)
    block = Block(kind).eval()
    x = torch.randn(2, 5, 8)
    found = find_streams(nn.Sequential(block), ['0.linear'], lambda: block(x.clone()))
    assert bool(found) == known
    if known:
        stream = found['0.linear']
        assert stream.source in ('0', '0.norm')
        scale = None if kind == 'plain' else block.scale
        assert (stream.scale is None) == (scale is None)
        if scale is not None:
            torch.testing.assert_close(stream.scale, scale.detach(), rtol=1e-3, atol=0)


def test_streams_that_change_in_place_are_none():
    torch.manual_seed(0)
    block = Block('in place').eval()
    assert not find_streams(nn.Sequential(block), ['0.linear'], lambda: block(torch.randn(2, 5, 8)))


def test_bad_values():
    for key in ('dense_targets', 'dense_share'):
        with pytest.raises(UserError, match=rf'{key} is 1.5; it must be a number in \[0, 1\]'):
            LeastSquares(**{key: 1.5})


def test_the_dense_weights_come_back():
    case = BY_NAME['llama-gqa']
    model = case.dense()
    before = deepcopy(model.state_dict())
    changed = set(LeastSquares().apply(model, case.state('half'), data_of(case), run))
    for name, tensor in model.state_dict().items():
        assert name in changed or torch.equal(tensor, before[name]), name
