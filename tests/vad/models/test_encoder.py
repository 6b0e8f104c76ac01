"""The BEV encoder and what is prepared for it, step by step."""

import copy

import numpy as np
import pytest
import tiny_vad as tiny
import torch
from mmengine.registry import MODELS
from torch import nn

from projects.vad.models import bev_geometry as geometry

H, W = tiny.BEV_H, tiny.BEV_W


@pytest.fixture
def transformer():
    tiny.init_default_scope('mmdet3d')
    return tiny.wake(MODELS.build(tiny.config().model.pts_bbox_head.transformer)).eval()


def features(batch=1):
    sizes = [(4, 6), (2, 3)]
    return [torch.randn(batch, tiny.CAMERAS, tiny.DIMS, *size) for size in sizes], sizes


def arguments(batch=1):
    """What the transformer encodes: features, queries, positions, shape, frames, size."""
    frames = [tiny.relative([tiny.frame(i), tiny.frame(i + 1)])[1] for i in range(batch)]
    queries = torch.randn(H * W, tiny.DIMS)
    return (
        features(batch)[0],
        queries,
        torch.randn(1, H * W, tiny.DIMS),
        (H, W),
        frames,
        (30.0, 60.0),
    )


@torch.no_grad()
@pytest.mark.parametrize('with_previous', [True, False])
def test_encoder_layer_by_layer(transformer, with_previous):
    """Grid shifted for both BEVs; all layers see the first queries and the same history."""
    encoder, batch = transformer.encoder, 2
    query, previous = torch.randn(batch, H * W, tiny.DIMS), torch.randn(batch, H * W, tiny.DIMS)
    pos, shift = torch.randn(1, H * W, tiny.DIMS), torch.tensor([[0.1, -0.05], [0.0, 0.2]])
    levels = [(4, 6), (2, 3)]
    values = torch.randn(batch * tiny.CAMERAS, 30, tiny.DIMS)
    lidar2img = np.stack([tiny.rig(first=0.3 * b) for b in range(batch)])
    size = tiny.HEIGHT, tiny.WIDTH
    found = encoder(
        query,
        pos,
        (H, W),
        shift,
        previous if with_previous else None,
        values,
        levels,
        lidar2img,
        size,
    )
    grid = geometry.grid_points(H, W, query.device) + shift[:, None]
    points = geometry.pillar_points(H, W, 4, encoder.pc_range, query.device)
    hits = geometry.camera_hits(*geometry.project(points, torch.tensor(lidar2img).float(), size))
    x = query
    for layer in encoder.layers:
        history = (previous, query) if with_previous else None
        x = layer.norms[0](layer.attentions[0](x, pos, grid, (H, W), history))
        x = layer.norms[1](layer.attentions[1](x, values, hits, levels))
        first, last = (m for m in layer.ffns[0].modules() if isinstance(m, nn.Linear))
        x = layer.norms[2](x + last(first(x).relu()))
    torch.testing.assert_close(found, x, atol=1e-5, rtol=1e-4)


def test_grids_are_kept_and_follow_the_shape(transformer):
    encoder, device = transformer.encoder, torch.device('cpu')
    first = encoder.grids((H, W), device)
    assert encoder.grids((H, W), device) is first
    assert encoder.grids((W, H), device)[0].tolist() != first[0].tolist()
    assert torch.equal(encoder.grids((H, W), device)[1], first[1])


def test_features_carry_their_camera_and_level(transformer):
    maps, sizes = features(batch=2)
    flat, levels = transformer.flatten(maps)
    assert levels == sizes and flat.shape == (2 * tiny.CAMERAS, 30, tiny.DIMS)
    for b in range(2):
        for camera in range(tiny.CAMERAS):
            first = 0
            for level, (h, w) in enumerate(sizes):
                extra = transformer.cams_embeds[camera] + transformer.level_embeds[level]
                for row, column in ((0, 0), (1, 2), (h - 1, w - 1)):
                    expected = maps[level][b, camera, :, row, column] + extra
                    cell = flat[b * tiny.CAMERAS + camera, first + row * w + column]
                    torch.testing.assert_close(cell, expected)
                first += h * w


def spy(transformer, monkeypatch):
    calls, forward = [], transformer.encoder.forward
    monkeypatch.setattr(
        transformer.encoder, 'forward', lambda *args: calls.append(args) or forward(*args)
    )
    return calls


@torch.no_grad()
def test_encoder_gets_queries_motion_and_turned_history(transformer, monkeypatch):
    calls = spy(transformer, monkeypatch)
    inputs = arguments(batch=2)
    previous = torch.randn(2, H * W, tiny.DIMS)
    before, frames = previous.clone(), copy.deepcopy(inputs[4])
    transformer.rotate_center = (3, 4)
    transformer.encode(*inputs, previous)
    query, pos, shape, shift, turned, _, _, lidar2img, size = calls[0]
    can_bus = np.stack([frame['can_bus'] for frame in frames])
    signals = transformer.can_bus_mlp(torch.tensor(can_bus).float())
    for b in range(2):
        torch.testing.assert_close(query[b], inputs[1] + signals[b])
        expected = geometry.rotate_bev(previous[b : b + 1], [can_bus[b, -1]], (H, W), (3, 4))
        assert torch.equal(turned[b : b + 1], expected)
        np.testing.assert_allclose(
            shift[b], geometry.bev_shift(can_bus[b : b + 1], (30.0, 60.0))[0], atol=1e-7
        )
        np.testing.assert_array_equal(lidar2img[b], frames[b]['lidar2img'])
    assert shape == (H, W) and size == (tiny.HEIGHT, tiny.WIDTH) and pos is inputs[2]
    assert torch.equal(previous, before)  # the original writes into it
    assert all((a['can_bus'] == b['can_bus']).all() for a, b in zip(inputs[4], frames, strict=True))


@torch.no_grad()
def test_samples_of_a_batch_are_independent(transformer):
    """Each has cameras, motion and history of its own (in the original only the first counts)."""
    maps, queries, pos, shape, frames, size = arguments(batch=2)
    frames[1]['lidar2img'] = tiny.rig(first=0.9)
    previous = torch.randn(2, H * W, tiny.DIMS)
    both = transformer.encode(maps, queries, pos, shape, frames, size, previous)
    for b in range(2):
        own = [level[b : b + 1] for level in maps]
        alone = transformer.encode(
            own, queries, pos, shape, frames[b : b + 1], size, previous[b : b + 1]
        )
        torch.testing.assert_close(both[b : b + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_mixed_precision_gives_almost_the_same(transformer, dtype):
    inputs, previous = arguments(), torch.randn(1, H * W, tiny.DIMS)
    exact = transformer.encode(*inputs, previous)
    with torch.autocast('cpu', dtype=dtype):
        found = transformer.encode(*inputs, previous)
    assert (found - exact).abs().mean() < 0.05 * exact.std()


def test_training_after_inference_mode(transformer):
    inputs = arguments()
    with torch.inference_mode():
        transformer.encode(*inputs)
    transformer.encode(*inputs).square().sum().backward()
    assert transformer.cams_embeds.grad.any()


def test_starts_as_the_original(transformer):
    transformer.init_weights()
    for module in transformer.modules():
        if isinstance(module, nn.Linear) and module.weight.shape[0] == 3:
            assert not module.bias.any()
    attention = transformer.encoder.layers[0].attentions[0]
    assert not attention.sampling_offsets.weight.any() and attention.sampling_offsets.bias.any()
    assert not attention.attention_weights.weight.any()
    assert not transformer.reference_points.bias.any()
    assert 0.7 < transformer.level_embeds.std() < 1.4
