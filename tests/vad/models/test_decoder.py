"""The decoders, with stand-ins for layers and branches where only the chain matters."""

import pytest
import tiny_vad as tiny
import torch
from mmengine.registry import MODELS
from torch import nn

from projects.vad.models.decoder import (
    CustomTransformerDecoder,
    DetectionTransformerDecoder,
    MapDetectionTransformerDecoder,
    VADDecoderLayer,
    inverse_sigmoid,
)

DIMS = 12
LAYER = dict(
    type='VADDecoderLayer',
    embed_dims=DIMS,
    num_heads=3,
    feedforward_channels=20,
    cross_attn=dict(type='CustomMSDeformableAttention', embed_dims=DIMS, num_heads=3, num_levels=1),
)
DECODERS = [
    (DetectionTransformerDecoder, 3, 10, [0, 1, 4]),
    (MapDetectionTransformerDecoder, 2, 2, [0, 1]),
]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_inverse_sigmoid_is_a_bounded_logit():
    x = torch.tensor([-0.1, 0.0, 1e-7, 1e-5, 0.3, 0.5, 0.99, 1.0, 1.2])
    expected = torch.logit(x.double(), eps=1e-5).float()
    torch.testing.assert_close(inverse_sigmoid(x), expected, atol=2e-3, rtol=0)
    inner = torch.linspace(0.01, 0.99, 50)
    close(inverse_sigmoid(inner).sigmoid(), inner)


@pytest.mark.parametrize('kind, size, codes, index', DECODERS)
def test_references_are_moved_layer_by_layer(kind, size, codes, index):
    decoder = tiny.wake(kind(3, LAYER)).eval()
    branches = nn.ModuleList(nn.Linear(DIMS, codes) for _ in range(3))
    query, pos, bev = torch.randn(2, 5, DIMS), torch.randn(2, 5, DIMS), torch.randn(2, 12, DIMS)
    start = torch.rand(2, 5, size, requires_grad=True)
    found = decoder(query, pos, bev, start, (3, 4), branches)
    state, points = query, start
    for i, (layer, branch) in enumerate(zip(decoder.layers, branches, strict=True)):
        state = layer(state, pos, bev, points[..., :2], (3, 4))
        code = branch(state)
        close(found.states[i], state)
        close(found.codes[i], code)
        close(found.references[i].sigmoid(), points)
        moved = [code[..., c] + torch.logit(points[..., k], 1e-5) for k, c in enumerate(index)]
        points = torch.stack(moved, -1).sigmoid().detach()


class Standstill(nn.Module):
    """A layer that gives back its queries."""

    def forward(self, query, *args):
        return query


@pytest.mark.parametrize('kind, size, codes, index', DECODERS)
def test_references_carry_no_gradient_to_earlier_layers(kind, size, codes, index):
    decoder = kind(0, LAYER)
    decoder.layers.extend([Standstill(), Standstill(), Standstill()])
    branches = nn.ModuleList(nn.Linear(DIMS, codes) for _ in range(3))
    start = torch.rand(1, 4, size, requires_grad=True)
    query = torch.randn(1, 4, DIMS)
    found = decoder(query, query, torch.zeros(1, 1, DIMS), start, (1, 1), branches)
    places = (found.codes[-1][..., index] + found.references[-1]).sum()
    grads = torch.autograd.grad(
        places, [start, *branches.parameters()], allow_unused=True, retain_graph=True
    )
    used = [g is not None and bool(g.any()) for g in grads]
    assert used == [False] * 5 + [True] * 2  # the last branch alone
    (first,) = torch.autograd.grad(found.references[0].sum(), start)
    assert first.any()  # the first reference point is learnt


def test_layers_and_branches_must_match():
    decoder = MapDetectionTransformerDecoder(2, LAYER)
    x = torch.zeros(1, 1, DIMS)
    with pytest.raises(ValueError, match='zip'):
        decoder(x, x, x, x[..., :2], (1, 1), nn.ModuleList([nn.Linear(DIMS, 2)]))


def test_decoder_layer_step_by_step():
    layer = tiny.wake(MODELS.build(LAYER)).eval()
    assert isinstance(layer, VADDecoderLayer)
    query, pos, bev = torch.randn(2, 5, DIMS), torch.randn(2, 5, DIMS), torch.randn(2, 12, DIMS)
    places = torch.rand(2, 5, 2)
    own = nn.MultiheadAttention(DIMS, 3, batch_first=True).eval()
    own.load_state_dict(layer.attentions[0].attn.state_dict())
    x = layer.norms[0](query + own(query + pos, query + pos, query)[0])
    x = layer.norms[1](layer.attentions[1](x, bev, pos, places, [(3, 4)]))
    first, last = (m for m in layer.ffns[0].modules() if isinstance(m, nn.Linear))
    x = layer.norms[2](x + last(first(x).relu()))
    close(layer(query, pos, bev, places, (3, 4)), x)


@pytest.mark.parametrize('with_keys', [True, False])
def test_cross_attention_layers_step_by_step(with_keys):
    decoder = tiny.wake(CustomTransformerDecoder(2, DIMS, 3, 20)).eval()
    query, pos = torch.randn(2, 5, DIMS), torch.randn(2, 5, DIMS)
    key, key_pos = (torch.randn(2, 7, DIMS) for _ in range(2)) if with_keys else (None, None)
    hidden = torch.rand(2, 7 if with_keys else 5) > 0.7
    found = decoder(query, query_pos=pos, key=key, key_pos=key_pos, hidden=hidden)
    x = query
    for layer in decoder.layers:
        attention = nn.MultiheadAttention(DIMS, 3, batch_first=True).eval()
        attention.load_state_dict(layer.attentions[0].attn.state_dict())
        keys, places = (key, key_pos) if with_keys else (x, pos)
        seen = attention(x + pos, keys + places, keys, key_padding_mask=hidden)[0]
        x = layer.norms[0](x + seen)
        first, last = (m for m in layer.ffns[0].modules() if isinstance(m, nn.Linear))
        x = layer.norms[1](x + last(first(x).relu()))
    close(found, x)
