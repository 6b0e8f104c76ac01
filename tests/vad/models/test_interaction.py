"""Who sees whom."""

import torch

from projects.vad.models.interaction import nearest_to_corner, out_of_reach, pad_last, unsure


def test_nearest_to_corner_of_each_line():
    lines = torch.rand(2, 4, 7, 2)
    found = nearest_to_corner(lines)
    for b in range(2):
        for line in range(4):
            nearest = min(lines[b, line].tolist(), key=lambda p: p[0] ** 2 + p[1] ** 2)
            assert found[b, line].tolist() == nearest


def test_the_corner_is_not_the_ego():
    """The ego is at (0.5, 0.5); the first point is nearer to it, the second to (0, 0)."""
    line = torch.tensor([[[[0.5, 0.6], [0.1, 0.1]]]])
    assert torch.equal(nearest_to_corner(line), line[:, :, 1])


def test_unsure_up_to_the_threshold():
    logits = torch.tensor([[[-1.0, 0.0], [-1.0, 0.1], [-3.0, -0.1], [9.0, -9.0]]])
    assert unsure(logits, 0.5).tolist() == [[True, False, True, False]]


def test_threshold_zero_keeps_all():
    """Also in half floats, where a sigmoid soon is 0."""
    logits = torch.tensor([[[-30.0], [-20.0], [0.0]]])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert not unsure(logits.to(dtype), 0.0).any()


def test_not_a_number_is_unsure_and_out_of_reach():
    nan = torch.full((1, 1, 2), float('nan'))
    assert unsure(nan, 0.0).all()
    assert out_of_reach(nan, torch.zeros(1, 1, 2), 0.2).all()


def test_out_of_reach_pair_by_pair():
    positions, targets = torch.rand(2, 5, 2), torch.rand(2, 4, 2)
    found = out_of_reach(positions, targets, 0.4)
    assert found.shape == (2, 5, 4)
    for b in range(2):
        for q in range(5):
            for k in range(4):
                distance = float((positions[b, q] - targets[b, k]).norm())
                assert bool(found[b, q, k]) == (distance > 0.4)


def test_just_in_reach_is_in_reach():
    positions = torch.zeros(1, 1, 2)
    targets = torch.tensor([[[0.25, 0.0], [0.2501, 0.0]]])
    assert out_of_reach(positions, targets, 0.25).tolist() == [[[False, True]]]


def test_pad_last():
    x = torch.randn(2, 3, 4)
    padded = pad_last(x, 1.0)
    assert torch.equal(padded[:, :3], x) and (padded[:, 3] == 1).all() and padded.shape == (2, 4, 4)
    mask = pad_last(torch.ones(2, 3) > 0, False)
    assert mask.dtype == torch.bool and mask.tolist() == [[True] * 3 + [False]] * 2
