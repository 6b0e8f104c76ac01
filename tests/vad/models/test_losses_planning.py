"""Planning losses against their definitions, written out in loops, and on scenes one can picture."""

import math

import pytest
import torch

from projects.vad.models.losses import (
    PlanCollisionLoss,
    PlanMapBoundLoss,
    PlanMapDirectionLoss,
)
from projects.vad.models.losses.plan_direction import line_angle
from projects.vad.models.losses.polylines import segments_cross

AHEAD = torch.tensor([[[0.0, 2.0]] * 6])
ONES = torch.ones(1, 6)


def lane(x0, y0, x1, y1, points=20):
    """A straight line of points, ``(1, 1, points, 2)``."""
    t = torch.linspace(0, 1, points)[:, None]
    return (torch.tensor([x0, y0]) * (1 - t) + torch.tensor([x1, y1]) * t)[None, None]


def scene(seed, batch=2, lines=16, points=5, agents=24):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=g)  # noqa: E731
    offsets = torch.stack([rand(batch, 6) - 0.5, rand(batch, 6) * 2], -1)
    start = rand(batch, lines, 1, 2) * 10 - torch.tensor([5.0, 2.0])
    line = start + (rand(batch, lines, points, 2) * 2 - 1).cumsum(2)
    weight = (rand(batch, 6) > 0.3).float()
    centers = rand(batch, agents, 2) * 12 - torch.tensor([6.0, 4.0])
    motion = rand(batch, agents, 4, 6, 2) * 2 - 1
    return dict(
        offsets=offsets,
        lines=line,
        line_scores=rand(batch, lines, 3),
        weight=weight,
        agents=(centers, motion, rand(batch, agents, 10), rand(batch, agents, 4)),
    )


def path_of(offsets):
    x = y = 0.0
    path = []
    for dx, dy in offsets.tolist():
        x, y = x + dx, y + dy
        path.append((x, y))
    return path


def side(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def cross(a, b, c, d):
    """General position: the ends of each segment lie on both sides of the other."""
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


@pytest.mark.parametrize('seed', range(5))
def test_bound_is_its_definition(seed):
    case, total = scene(seed), 0.0
    for b in range(2):
        path = path_of(case['offsets'][b])
        edges = [
            line.tolist()
            for line, score in zip(case['lines'][b], case['line_scores'][b, :, 2], strict=True)
            if score >= 0.5
        ]
        before, crossed = (0.0, 0.0), False
        for step, weight in zip(path, case['weight'][b].tolist(), strict=True):
            near = min(edges, key=lambda line, s=step: min(math.dist(s, p) for p in line))
            pairs = zip(near[:-1], near[1:], strict=True)
            crossed = crossed or any(cross(before, step, p, q) for p, q in pairs)
            if not crossed:
                total += weight * max(1.5 - min(math.dist(step, p) for p in near), 0.0)
            before = step
    assert total > 0
    loss = PlanMapBoundLoss(loss_weight=2.0, dis_thresh=1.5)
    found = loss(case['offsets'], case['lines'], case['line_scores'], case['weight'])
    assert found == pytest.approx(2 * total / 12, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('seed', range(5))
def test_collision_is_its_definition(seed):
    case, total = scene(seed), 0.0
    centers, motion, scores, modes = case['agents']
    for b in range(2):
        path = path_of(case['offsets'][b])
        others = []
        for a in range(24):
            if float(scores[b, a].max()) >= 0.5 and int(scores[b, a].argmax()) <= 4:
                x, y = centers[b, a].tolist()
                steps = path_of(motion[b, a, int(modes[b, a].argmax())])
                others.append([(x + dx, y + dy) for dx, dy in steps])
        for t, weight in enumerate(case['weight'][b].tolist()):
            close = [o[t] for o in others if math.dist(o[t], path[t]) <= 3.0]
            for axis, limit in ((0, 1.5), (1, 3.0)):
                gaps = [abs(o[axis] - path[t][axis]) for o in close]
                total += weight * max(limit - min(gaps, default=1e6), 0.0)
    found = PlanCollisionLoss(2.0)(case['offsets'], *case['agents'], case['weight'])
    assert total > 0
    assert found == pytest.approx(2 * total / 24, rel=1e-5)


@pytest.mark.parametrize('seed', range(5))
def test_direction_is_its_definition(seed):
    case, total = scene(seed), 0.0
    for b in range(2):
        path = path_of(case['offsets'][b])
        dividers = [
            line.tolist()
            for line, score in zip(case['lines'][b], case['line_scores'][b, :, 0], strict=True)
            if score >= 0.5
        ]
        if math.dist(path[0], path[-1]) < 1.0:
            continue
        for t, weight in enumerate(case['weight'][b].tolist()):
            dist = lambda p, step=path[t]: math.dist(step, p)  # noqa: E731
            near = min(dividers, key=lambda line: min(map(dist, line)))
            i = min(range(len(near)), key=lambda i: dist(near[i]))
            j = i + 1 if i + 1 < len(near) else i - 1
            a, c = (path[t], path[t + 1]) if t < 5 else (path[4], path[5])
            ego = c[0] - a[0], c[1] - a[1]
            way = near[j][0] - near[i][0], near[j][1] - near[i][1]
            if dist(near[i]) <= 2.0:
                cosine = (
                    abs(ego[0] * way[0] + ego[1] * way[1]) / math.hypot(*ego) / math.hypot(*way)
                )
                total += weight * math.acos(min(cosine, 1.0))
    found = PlanMapDirectionLoss(2.0)(
        case['offsets'], case['lines'], case['line_scores'], case['weight']
    )
    assert total > 0
    assert found == pytest.approx(2 * total / 12, rel=1e-4)


def test_an_edge_half_a_metre_away_pushes_and_none_once_crossed():
    scores = torch.tensor([[[0.0, 0.0, 0.9]]])
    loss = PlanMapBoundLoss()
    beside = loss(AHEAD, lane(0.5, 0.0, 0.5, 12.0, points=13), scores, ONES)
    assert beside == pytest.approx(0.5, abs=1e-5)
    assert loss(AHEAD, lane(0.5, 0.0, 0.5, 12.0, 13), scores * 0.5, ONES) == 0
    across = loss(AHEAD, lane(-5.0, 1.0, 5.0, 1.0, points=21), scores, ONES)
    assert across == 0


def test_a_lane_ahead_costs_nothing_in_either_direction_and_a_right_angle_most():
    scores = torch.tensor([[[0.9, 0.0, 0.0]]])
    loss = PlanMapDirectionLoss()
    for line in (lane(1.0, 0.0, 1.0, 14.0), lane(1.0, 14.0, 1.0, 0.0)):
        assert loss(AHEAD, line, scores, ONES) == pytest.approx(0.0, abs=1e-5)
    crosswise = lane(-0.5, 2.0, 0.5, 2.0)
    first_only = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    assert loss(AHEAD, crosswise, scores, first_only) == pytest.approx(math.pi / 2 / 6, rel=1e-5)
    assert loss(AHEAD * 0.05, crosswise, scores, ONES) == 0
    assert loss(AHEAD, lane(3.0, 0.0, 3.0, 14.0), scores, ONES) == 0


def test_nothing_detected_costs_nothing_and_leaves_a_finite_gradient():
    offsets = torch.zeros(1, 6, 2, requires_grad=True)
    lines, scores = torch.rand(1, 3, 4, 2, requires_grad=True), torch.zeros(1, 3, 3)
    motion = torch.zeros(1, 2, 3, 6, 2, requires_grad=True)
    agents = torch.zeros(1, 2, 2), motion, torch.zeros(1, 2, 10), torch.zeros(1, 2, 3)
    total = (
        PlanMapBoundLoss()(offsets, lines, scores, ONES)
        + PlanMapDirectionLoss()(offsets, lines, scores, ONES)
        + PlanCollisionLoss()(offsets, *agents, ONES)
    )
    assert total == 0
    total.backward()
    assert all(torch.isfinite(x.grad).all() for x in (offsets, lines, motion))


def test_pedestrians_do_not_collide():
    centers, motion = torch.tensor([[[0.0, 4.0]]]), torch.zeros(1, 1, 2, 6, 2)
    modes = torch.tensor([[[0.2, 0.8]]])
    loss = PlanCollisionLoss()
    for label, positive in ((0, True), (4, True), (5, False), (8, False)):
        scores = torch.full((1, 1, 10), 0.1)
        scores[..., label] = 0.7
        assert (loss(AHEAD, centers, motion, scores, modes, ONES) > 0) == positive


def test_lines_have_no_direction():
    angles = torch.tensor([0.0, 0.3, math.pi - 0.1, -math.pi + 0.1, 2 * math.pi, 1.5 * math.pi])
    found = line_angle(angles, torch.zeros(6)).tolist()
    assert found == pytest.approx([0.0, 0.3, 0.1, 0.1, 0.0, math.pi / 2], abs=1e-6)


def test_parallel_segments_do_not_cross():
    a = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    c = torch.tensor([[1.0, -1.0], [0.0, 0.0], [3.0, -1.0]])
    d = torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])
    assert segments_cross(a, b, c, d).tolist() == [True, False, False]
