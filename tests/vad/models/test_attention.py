"""The attention modules against torch's own, and against loops over single points."""

import math

import pytest
import tiny_vad as tiny
import torch
from torch import nn

from projects.vad.models.attention import (
    CustomMSDeformableAttention,
    DeformableAttention,
    HeadAttention,
    MSDeformableAttention3D,
    MultiheadAttention,
    SpatialCrossAttention,
    TemporalSelfAttention,
)
from projects.vad.models.attention.deformable import offset_bias
from projects.vad.models.bev_geometry import camera_hits

DIMS, HEADS, BATCH = 12, 3, 2


def twins(dims=DIMS, heads=HEADS):
    """Our attention and torch's, of the same weights."""
    theirs = tiny.wake(nn.MultiheadAttention(dims, heads, batch_first=True)).eval()
    ours = HeadAttention(dims, heads, dims // heads, dropout=0.0).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def tokens(count, dims=DIMS, batch=BATCH):
    return torch.randn(batch, count, dims)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('hidden', ['none', 'keys', 'pairs'])
def test_heads_attend_as_torchs_do(hidden):
    ours, theirs = twins()
    query, key, value = tokens(5), tokens(7), tokens(7)
    mask, arguments = None, {}
    if hidden == 'keys':
        mask = torch.rand(BATCH, 7) > 0.5
        mask[:, 2] = False
        arguments = dict(key_padding_mask=mask)
    if hidden == 'pairs':
        mask = torch.rand(BATCH, 5, 7) > 0.5
        mask[:, :, 3] = False
        arguments = dict(attn_mask=mask.repeat_interleave(HEADS, 0))
    close(ours(query, key, value, mask), theirs(query, key, value, **arguments)[0])


def test_state_dict_and_start_are_torchs():
    torch.manual_seed(3)
    theirs = nn.MultiheadAttention(DIMS, HEADS)
    torch.manual_seed(3)
    ours = HeadAttention(DIMS, HEADS, DIMS // HEADS, dropout=0.1)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    limit = math.sqrt(6 / (4 * DIMS))
    assert 0.9 * limit < ours.in_proj_weight.abs().max() <= limit
    assert not ours.in_proj_bias.any() and not ours.out_proj.bias.any()


@pytest.mark.parametrize('with_hidden', [False, True])
def test_shifted_keys_are_keys_of_each_query(with_hidden):
    ours, theirs = twins()
    query, key, value, shift = tokens(5), tokens(7), tokens(7), tokens(5)
    shifted = torch.tensor([1.0, 1, 1, 0, 1, 1, 0])
    hidden = None
    if with_hidden:
        hidden = torch.rand(BATCH, 5, 7) > 0.6
        hidden[..., -1] = False
    found = ours(query, key, value, hidden, key_shift=shift, shifted=shifted)
    for i in range(5):
        own = key - shift[:, i : i + 1] * shifted[:, None]
        mask = None if hidden is None else hidden[:, i]
        expected = theirs(query[:, i : i + 1], own, value, key_padding_mask=mask)[0]
        close(found[:, i : i + 1], expected)


def test_inner_width_of_its_own():
    """Two heads of width 5 on 12 channels: a softmax per head, written out."""
    attention = tiny.wake(HeadAttention(12, num_heads=2, head_dim=5, dropout=0.0)).eval()
    assert attention.in_proj_weight.shape == (30, 12)
    assert attention.out_proj.weight.shape == (12, 10)
    query, key = tokens(4).requires_grad_(), tokens(6)
    found = attention(query, key, key)
    weights = attention.in_proj_weight.view(3, 2, 5, 12)
    biases = attention.in_proj_bias.view(3, 2, 5)
    total = attention.out_proj.bias
    for head in range(2):
        q, k, v = (
            x @ weights[i, head].T + biases[i, head] for i, x in enumerate((query, key, key))
        )
        share = (q @ k.transpose(1, 2) / math.sqrt(5)).softmax(-1)
        total = total + share @ v @ attention.out_proj.weight[:, 5 * head : 5 * head + 5].T
    close(found, total)
    found.square().sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in (query, *attention.parameters()))


def test_a_head_less_is_a_head_without_output():
    whole = tiny.wake(MultiheadAttention(DIMS, HEADS)).eval()
    less = MultiheadAttention(DIMS, HEADS - 1, head_dim=DIMS // HEADS).eval()
    kept = [i for i in range(DIMS) if not 4 <= i < 8]  # without the second head
    rows = [part * DIMS + i for part in range(3) for i in kept]
    with torch.no_grad():
        less.attn.in_proj_weight.copy_(whole.attn.in_proj_weight[rows])
        less.attn.in_proj_bias.copy_(whole.attn.in_proj_bias[rows])
        less.attn.out_proj.weight.copy_(whole.attn.out_proj.weight[:, kept])
        less.attn.out_proj.bias.copy_(whole.attn.out_proj.bias)
        whole.attn.out_proj.weight[:, 4:8] = 0
    query, key = tokens(5), tokens(7)
    close(less(query, key), whole(query, key))


@pytest.mark.parametrize('own_keys', [True, False])
def test_positions_and_residual_as_in_mmcv(own_keys):
    """Positions are added to queries and keys, never to values; the plain query comes back."""
    ours = tiny.wake(MultiheadAttention(DIMS, HEADS)).eval()
    theirs = nn.MultiheadAttention(DIMS, HEADS, batch_first=True).eval()
    theirs.load_state_dict(ours.attn.state_dict())
    query, pos, key, key_pos = tokens(5), tokens(5), tokens(7), tokens(7)
    if own_keys:
        found = ours(query, key, pos, key_pos)
    else:
        key, key_pos, found = query, pos, ours(query, query_pos=pos)
    close(found, query + theirs(query + pos, key + key_pos, key)[0])


def test_dropout_only_while_training():
    attention = MultiheadAttention(DIMS, HEADS, dropout=0.5)
    query = tokens(5)
    assert not torch.equal(attention(query), attention(query))
    attention.eval()
    assert torch.equal(attention(query), attention(query))


def test_offsets_start_in_eight_directions():
    bias = offset_bias(8, 2, 3).view(8, 2, 3, 2)
    compass = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, direction in enumerate(compass):
        for level in range(2):
            for point in range(3):
                expected = torch.tensor(direction) * (point + 1.0)
                close(bias[head, level, point], expected)


def inner(attention, query):
    """Offsets ``(..., heads, maps, levels, points, 2)`` and weights, unfolded by plain views."""
    sizes = attention.num_heads, attention.maps, attention.num_levels, attention.num_points
    offsets = attention.sampling_offsets(query).view(*query.shape[:-1], *sizes, 2)
    weights = attention.attention_weights(query).view(*query.shape[:-1], *sizes[:2], -1)
    return offsets, weights.softmax(-1).view(*query.shape[:-1], *sizes)


def looked_up(attention, value, shapes, places, offsets, weights):
    """One query's ``(heads * head_dim,)``: point by point; ``places[p]`` is where point p starts."""
    found = []
    dim = attention.head_dim
    for head in range(attention.num_heads):
        total = torch.zeros(dim)
        for level, image in enumerate(tiny.maps(value, shapes)):
            h, w = shapes[level]
            for p in range(attention.num_points):
                x = float(places[p][0] + offsets[head, level, p, 0] / w)
                y = float(places[p][1] + offsets[head, level, p, 1] / h)
                seen = tiny.bilinear(image[..., head * dim : (head + 1) * dim], x, y)
                total = total + weights[head, level, p] * seen
        found.append(total)
    return torch.cat(found)


@torch.no_grad()
def test_decoder_attention_point_by_point():
    attention = tiny.wake(CustomMSDeformableAttention(DIMS, HEADS, num_levels=2, num_points=2))
    attention.eval()
    shapes = [(4, 3), (2, 2)]
    query, pos, value = tokens(5), tokens(5), tokens(16)
    places = torch.rand(BATCH, 5, 2)
    found = attention(query, value, pos, places, shapes)
    offsets, weights = inner(attention, query + pos)
    projected = attention.value_proj(value)
    for b in range(BATCH):
        for q in range(5):
            args = [places[b, q]] * 2, offsets[b, q, :, 0], weights[b, q, :, 0]
            seen = looked_up(attention, projected[b], shapes, *args)
            close(found[b, q], attention.output_proj(seen) + query[b, q])


@torch.no_grad()
@pytest.mark.parametrize('with_previous', [True, False])
def test_temporal_attention_point_by_point(with_previous):
    """With a history the values are the previous BEV and the *initial* queries, else the query."""
    attention = tiny.wake(TemporalSelfAttention(DIMS, HEADS, num_points=2)).eval()
    shape = (3, 4)
    query, pos, previous, initial = (tokens(12) for _ in range(4))
    places = torch.rand(BATCH, 12, 2)
    history = (previous, initial) if with_previous else None
    found = attention(query, pos, places, shape, history)
    if not with_previous:
        previous = initial = query
    offsets, weights = inner(attention, torch.cat([previous, query + pos], -1))
    for b in range(BATCH):
        values = [attention.value_proj(x[b]) for x in (previous, initial)]
        for q in range(0, 12, 3):
            seen = [
                looked_up(
                    attention,
                    value,
                    [shape],
                    [places[b, q]] * 2,
                    offsets[b, q, :, i],
                    weights[b, q, :, i],
                )
                for i, value in enumerate(values)
            ]
            expected = attention.output_proj((seen[0] + seen[1]) / 2) + query[b, q]
            close(found[b, q], expected)


def spatial(points=8, levels=2, heads=HEADS, **kwargs):
    inner_cfg = dict(
        type='MSDeformableAttention3D',
        embed_dims=DIMS,
        num_heads=heads,
        num_levels=levels,
        num_points=points,
        **kwargs,
    )
    return tiny.wake(SpatialCrossAttention(inner_cfg, DIMS)).eval()


def seen_by_hand(cameras=3, cells=5, heights=4):
    """Places in the images and which count; cell 4 is seen by none, cell 0 by all."""
    places = torch.rand(BATCH, cameras, cells, heights, 2) * 1.6 - 0.3
    inside = ((places > 0) & (places < 1)).all(-1)
    inside[..., 4, :] = False
    inside[:, :, 0, 1] = True
    inside[1, 2] = False  # this camera sees nothing
    return places, inside


@torch.no_grad()
def test_spatial_attention_point_by_point():
    """Point p starts at height p % 4; the mean is over cameras that see any height of a cell."""
    attention = spatial()
    shapes = [(4, 3), (2, 2)]
    places, inside = seen_by_hand()
    query, value = tokens(5), tokens(16, batch=BATCH * 3)
    found = attention(query, value, camera_hits(places, inside), shapes)
    deformable = attention.deformable_attention
    offsets, weights = inner(deformable, query)
    for b in range(BATCH):
        for q in range(5):
            total, cameras = torch.zeros(DIMS), 0
            for camera in range(3):
                if not inside[b, camera, q].any():
                    continue
                cameras += 1
                projected = deformable.value_proj(value[b * 3 + camera])
                starts = [places[b, camera, q, p % 4] for p in range(8)]
                args = starts, offsets[b, q, :, 0], weights[b, q, :, 0]
                total += looked_up(deformable, projected, shapes, *args)
            expected = attention.output_proj(total / max(cameras, 1)) + query[b, q]
            close(found[b, q], expected)
    close(found[:, 4], query[:, 4] + attention.output_proj.bias)


def test_spatial_attention_without_any_hit():
    attention = spatial()
    places, inside = seen_by_hand()
    query, value = tokens(5), tokens(16, batch=BATCH * 3).requires_grad_()
    found = attention(query, value, camera_hits(places, inside & False), [(4, 3), (2, 2)])
    close(found, query + attention.output_proj.bias)
    found.sum().backward()  # in distributed training every parameter needs a gradient
    assert all(p.grad is not None for p in attention.parameters())


@pytest.mark.parametrize('kind', ['decoder', 'temporal', 'spatial'])
def test_deformable_heads_can_be_fewer(kind):
    """Two heads of width 4 on 12 channels: shapes follow, forward and backward run."""
    sizes = dict(embed_dims=DIMS, num_heads=2, head_dim=4, num_points=4)
    query, pos, places = tokens(12), tokens(12), torch.rand(BATCH, 12, 2)
    if kind == 'decoder':
        module = CustomMSDeformableAttention(**sizes, num_levels=1)
        out = module(query, tokens(12), pos, places, [(3, 4)])
    elif kind == 'temporal':
        module = TemporalSelfAttention(**sizes)
        out = module(query, pos, places, (3, 4), (tokens(12), tokens(12)))
    else:
        module = spatial(points=8, levels=1, heads=2, head_dim=4)
        where, inside = seen_by_hand(cells=12)
        out = module(query, tokens(12, batch=6), camera_hits(where, inside), [(3, 4)])
    deformable = next(m for m in module.modules() if isinstance(m, DeformableAttention))
    assert deformable.value_proj.weight.shape == (8, DIMS)
    assert module.output_proj.weight.shape == (DIMS, 8)
    assert out.shape == query.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(
    'module', [CustomMSDeformableAttention, TemporalSelfAttention, MSDeformableAttention3D]
)
def test_starts_with_fixed_offsets_and_even_weights(module):
    attention = module(DIMS, HEADS)
    query = torch.randn(3, attention.sampling_offsets.in_features)
    offsets, weights = attention.offsets_and_weights(query)
    assert torch.equal(offsets[0], offsets[1])
    per_map = attention.num_levels * attention.num_points
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / per_map))
    assert hasattr(attention, 'output_proj') == (module is not MSDeformableAttention3D)


@pytest.mark.parametrize('masked', [False, True])
def test_gradients_in_bfloat16_are_those_of_full_precision(masked):
    """On CPUs attention runs in float32 while gradients are kept, whatever autocast says."""
    torch.manual_seed(0)
    attention = HeadAttention(24, 4, 6, 0.0)
    query, key = torch.randn(2, 9, 24, requires_grad=True), torch.randn(2, 7, 24)
    hidden = torch.rand(2, 9, 7) > 0.6 if masked else None
    if masked:
        hidden[..., 0] = False
    found = []
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            out = attention(query, key, key, hidden)
        query.grad = None
        out.float().square().sum().backward()
        found.append((out.detach().float(), query.grad.clone()))
    assert out.dtype == torch.bfloat16
    for exact, rounded in zip(*found, strict=True):
        assert float((exact - rounded).abs().max() / exact.abs().max()) < 0.02
