"""Deformable sampling against grid_sample, one level at a time."""

import pytest
import torch
import torch.nn.functional as F

from projects.vad.models.attention import sampling
from projects.vad.models.attention.sampling import Rows, deformable_sampling

SHAPES = [(4, 6), (3, 2), (1, 1)]
HEADS, DIM, POINTS = 3, 5, 2


def case(batch=2, queries=7, dtype=torch.float32, low=-0.4, high=1.4):
    """Values, locations (some outside) and weights."""
    count = sum(h * w for h, w in SHAPES)
    value = torch.randn(batch, count, HEADS, DIM, dtype=dtype)
    shape = (batch, queries, HEADS, len(SHAPES), POINTS)
    locations = torch.rand(*shape, 2, dtype=dtype) * (high - low) + low
    return value, locations, torch.randn(shape, dtype=dtype)


def reference(value, locations, weights):
    """``(B, Q, heads * head_dim)``, a ``grid_sample`` per level as in mmcv's plain version."""
    batch, queries = locations.shape[:2]
    total, first = 0, 0
    for level, (height, width) in enumerate(SHAPES):
        part = value[:, first : first + height * width]
        first += height * width
        image = part.permute(0, 2, 3, 1).reshape(batch * HEADS, DIM, height, width)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        seen = F.grid_sample(image, grid, padding_mode='zeros', align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).reshape(batch * HEADS, 1, queries, POINTS)
        total = total + (seen * share).sum(-1)
    return total.view(batch, HEADS * DIM, queries).transpose(1, 2)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def pairs(owner):
    """Rows of which number i looks at map ``owner[i]``."""
    owner = torch.tensor(owner, dtype=torch.long)
    slot = [int((owner[:i] == owner[i]).sum()) for i in range(len(owner))]
    longest = int(owner.bincount().max()) if len(owner) else 0
    return Rows(owner, torch.tensor(slot, dtype=torch.long), longest)


@pytest.mark.parametrize('grad', [True, False])
def test_is_a_grid_sample_per_level(grad):
    value, locations, weights = case()
    with torch.set_grad_enabled(grad):
        found = deformable_sampling(value.requires_grad_(), SHAPES, locations, weights)
    assert found.requires_grad == grad
    close(found, reference(value, locations, weights))


@pytest.mark.parametrize('chunk, calls', [(1, 14), (200, 7), (1 << 20, 1)])
def test_pieces_make_the_whole(chunk, calls, monkeypatch):
    """There are 14 rows of 72 corners."""
    arguments = case()
    counted, look_up = [], sampling.look_up
    monkeypatch.setattr(sampling, 'look_up', lambda *a: counted.append(1) or look_up(*a))
    with torch.no_grad():
        whole = deformable_sampling(arguments[0], SHAPES, *arguments[1:])
        counted.clear()
        monkeypatch.setattr(sampling, 'CHUNK', chunk)
        assert torch.equal(deformable_sampling(arguments[0], SHAPES, *arguments[1:]), whole)
    assert len(counted) == calls


@pytest.mark.parametrize('owner', [[0, 0, 0, 2], [1], [0, 1, 1, 2, 2, 2]], ids=str)
@pytest.mark.parametrize('chunk, grad', [(1, False), (1 << 20, False), (1, True)])
def test_rows_look_at_their_own_map(owner, chunk, grad, monkeypatch):
    value, locations, weights = case(batch=3, queries=len(owner))
    expected = reference(value, locations, weights)
    rows = pairs(owner)
    index = rows.batch, rows.slot
    monkeypatch.setattr(sampling, 'CHUNK', chunk)
    with torch.set_grad_enabled(grad):
        found = deformable_sampling(value, SHAPES, locations[index], weights[index], rows)
    close(found, expected[index])


@pytest.mark.parametrize('grad', [True, False])
def test_no_rows_at_all(grad):
    value, locations, weights = case()
    value.requires_grad_()
    with torch.set_grad_enabled(grad):
        found = deformable_sampling(value, SHAPES, locations[0, :0], weights[0, :0], pairs([]))
    assert found.shape == (0, HEADS * DIM)
    if grad:
        found.sum().backward()
        assert not value.grad.any()


def test_gradients_are_those_of_grid_sample():
    leaves = [x.requires_grad_() for x in case()]
    out = torch.randn(2, 7, HEADS * DIM)
    loss = (deformable_sampling(leaves[0], SHAPES, *leaves[1:]) * out).sum()
    found = torch.autograd.grad(loss, leaves)
    expected = torch.autograd.grad((reference(*leaves) * out).sum(), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def check_gradients(function, leaves):
    leaves = [x.requires_grad_() for x in leaves]
    assert torch.autograd.gradcheck(function, leaves, eps=1e-7, atol=1e-5, fast_mode=True)


def test_gradients_are_those_of_small_differences():
    check_gradients(
        lambda value, *x: deformable_sampling(value, SHAPES, *x),
        case(batch=1, queries=2, dtype=torch.float64),
    )


def test_gradients_of_rows_are_those_of_small_differences():
    value, locations, weights = case(batch=3, queries=1, dtype=torch.float64)
    rows = pairs([0, 2, 2])
    check_gradients(
        lambda value, *x: deformable_sampling(value, SHAPES, *x, rows),
        (value, locations[:, 0].contiguous(), weights[:, 0].contiguous()),
    )


def test_two_runs_are_bit_equal():
    def run():
        leaves = [x.clone().requires_grad_() for x in values]
        out = deformable_sampling(leaves[0], SHAPES, *leaves[1:])
        return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]

    values = case(queries=300)
    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('place', [-0.6, 1.6, -1e4, 1e4, 3e6])
def test_far_outside_is_zero(place, grad):
    """A point behind a camera is divided by next to nothing, and lies millions of images away."""
    value, locations, weights = case()
    with torch.set_grad_enabled(grad):
        found = deformable_sampling(value, SHAPES, torch.full_like(locations, place), weights)
    assert not found.any()


def test_edge_points_are_half_inside():
    value = torch.ones(1, 4, 1, 1)
    places = torch.tensor([[0.0, 0.5], [0.0, 0.0], [0.25, 0.25], [1.0, 0.5]])
    found = deformable_sampling(
        value, [(2, 2)], places.view(1, 4, 1, 1, 1, 2), torch.ones(1, 4, 1, 1, 1)
    )
    assert found.flatten().tolist() == [0.5, 0.25, 1.0, 0.5]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_floats_are_summed_as_floats(dtype):
    value, locations, weights = (x.to(dtype) for x in case())
    exact = deformable_sampling(value.float(), SHAPES, locations.float(), weights.float())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = deformable_sampling(value, SHAPES, locations, weights)
    assert found.dtype == dtype
    assert torch.equal(found, exact.to(dtype))


def test_operator_is_looked_for_on_gpus_alone():
    assert not sampling.has_operator('cpu')


class FakeOperator:
    """Takes the place of mmcv's compiled operator, and is as particular."""

    @staticmethod
    def apply(value, sizes, starts, locations, weights, step):
        assert sizes.tolist() == [list(shape) for shape in SHAPES]
        assert starts.tolist() == [0, 24, 30]
        assert all(x.is_contiguous() for x in (value, locations, weights))
        assert len(value) % min(len(value), step) == 0, 'the batch must be a multiple of the step'
        return reference(value, locations, weights)


@pytest.mark.parametrize('batch', [3, 66])
def test_operator_gets_what_it_needs(batch, monkeypatch):
    """Eleven samples of six cameras are 66 maps: more than the operator takes at once."""
    value, locations, weights = case(batch=batch, queries=4)
    expected = reference(value, locations, weights)
    rows = pairs([0, 0, 0, 1, 2, 2])
    index = rows.batch, rows.slot
    monkeypatch.setattr(sampling, 'has_operator', lambda device: True)
    monkeypatch.setattr(sampling, 'MultiScaleDeformableAttnFunction', FakeOperator)
    close(deformable_sampling(value, SHAPES, locations, weights), expected)
    found = deformable_sampling(value, SHAPES, locations[index], weights[index], rows)
    close(found, expected[index])
