"""Matching against all possible matchings, and its edge cases."""

import itertools
import math

import pytest
import torch
from mmengine.registry import TASK_UTILS
from mmengine.structures import InstanceData

from projects.vad.models.assigners import BBox3DL1Cost, OrderedPtsL1Cost
from projects.vad.models.assigners.hungarian import match

AGENTS = dict(
    type='HungarianAssigner3D',
    cls_cost=dict(type='mmdet.FocalLossCost', weight=0.8),
    reg_cost=dict(type='BBox3DL1Cost', weight=0.1),
)
ELEMENTS = dict(
    type='MapHungarianAssigner3D',
    cls_cost=dict(type='mmdet.FocalLossCost', weight=0.8),
    pts_cost=dict(type='OrderedPtsL1Cost', weight=0.4),
)


def cheapest(cost):
    """Least total over all ways to give each column (or row, if fewer) a partner of its own."""
    rows, columns = cost.shape
    if rows < columns:
        return cheapest(cost.T)
    ways = itertools.permutations(range(rows), columns)
    return min(sum(float(cost[r, c]) for c, r in enumerate(way)) for way in ways)


@pytest.mark.parametrize('truths', [(3, 2), (0, 4), (7, 1), (0, 0)])
def test_pairs_have_the_least_total_cost(truths):
    costs = [torch.randn(3, 5, n) for n in truths]
    found = match(costs)
    assert found.num_pairs == sum(min(n, 5) for n in truths)
    first = 0
    for b, cost in enumerate(costs):
        for layer in range(3):
            own = found.batch[layer] == b
            query, gt = found.query[layer, own], found.gt[layer, own] - first
            assert len(set(query.tolist())) == len(set(gt.tolist())) == min(truths[b], 5)
            assert query.tolist() == sorted(query.tolist())
            total = float(cost[layer, query, gt].sum())
            assert total == pytest.approx(cheapest(cost[layer]), abs=1e-5)
        first += truths[b]


def test_infinite_costs_are_avoided_and_nan_is_an_error():
    cost = torch.zeros(1, 3, 2)
    cost[0, :, 1] = float('inf')
    cost[0, 0, 0] = float('inf')
    found = match([cost])
    assert found.num_pairs == 2 and found.query[0, found.gt[0] == 0].item() != 0
    with pytest.raises(ValueError, match='invalid numeric'):
        match([cost * float('nan')])


def test_picked_rows_are_the_matched_queries():
    costs = [torch.randn(2, 5, 3), torch.randn(2, 5, 1)]
    found, values = match(costs), torch.randn(2, 2, 5, 7)
    picked = found.pick(values)
    for layer, pair in itertools.product(range(2), range(4)):
        b, q = found.batch[layer, pair], found.query[layer, pair]
        assert torch.equal(picked[layer, pair], values[layer, b, q])


def focal_cost(x):
    p = 1 / (1 + math.exp(-x))
    return -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)


def test_agents_are_matched_by_class_and_box_without_velocity():
    scores, codes = torch.randn(2, 2, 6, 10), torch.randn(2, 2, 6, 10)
    gts = [InstanceData(labels=torch.randint(10, (n,)), bboxes=torch.randn(n, 10)) for n in (3, 2)]
    found = TASK_UTILS.build(AGENTS).assign(scores, codes, gts)
    first = 0
    for b, gt in enumerate(gts):
        for layer in range(2):
            cost = torch.zeros(6, len(gt))
            for q, g in itertools.product(range(6), range(len(gt))):
                distance = (codes[layer, b, q, :8] - gt.bboxes[g, :8]).abs().sum()
                cost[q, g] = 0.8 * focal_cost(float(scores[layer, b, q, gt.labels[g]]))
                cost[q, g] += 0.1 * distance
            own = found.batch[layer] == b
            pairs = cost[found.query[layer, own], found.gt[layer, own] - first]
            assert float(pairs.sum()) == pytest.approx(cheapest(cost), abs=1e-5)
        first += len(gt)


def test_elements_are_matched_in_the_order_that_fits_best():
    scores, points = torch.randn(2, 2, 6, 3), torch.rand(2, 2, 6, 20, 2)
    gts = [
        InstanceData(labels=torch.randint(3, (n,)), shifted_pts=torch.rand(n, 5, 20, 2))
        for n in (2, 3)
    ]
    found = TASK_UTILS.build(ELEMENTS).assign(scores, points, gts)
    first = 0
    for b, gt in enumerate(gts):
        for layer in range(2):
            distance = torch.zeros(6, len(gt), 5)
            for q, g, o in itertools.product(range(6), range(len(gt)), range(5)):
                distance[q, g, o] = (points[layer, b, q] - gt.shifted_pts[g, o]).abs().sum()
            cost = 0.4 * distance.min(-1).values
            for q, g in itertools.product(range(6), range(len(gt))):
                cost[q, g] += 0.8 * focal_cost(float(scores[layer, b, q, gt.labels[g]]))
            own = found.batch[layer] == b
            query, index = found.query[layer, own], found.gt[layer, own] - first
            assert float(cost[query, index].sum()) == pytest.approx(cheapest(cost), abs=1e-4)
            assert found.order[layer, own].tolist() == distance[query, index].argmin(-1).tolist()
        first += len(gt)


def test_without_truths_there_are_no_pairs():
    agents = [InstanceData(labels=torch.zeros(0).long(), bboxes=torch.zeros(0, 10))] * 2
    found = TASK_UTILS.build(AGENTS).assign(
        torch.randn(3, 2, 6, 10), torch.randn(3, 2, 6, 10), agents
    )
    assert found.query.shape == (3, 0)
    lines = [InstanceData(labels=torch.zeros(0).long(), shifted_pts=torch.zeros(0, 5, 20, 2))] * 2
    found = TASK_UTILS.build(ELEMENTS).assign(
        torch.randn(3, 2, 6, 3), torch.rand(3, 2, 6, 20, 2), lines
    )
    assert found.order.shape == (3, 0) and found.order.dtype == torch.long


def test_costs_carry_their_weights():
    a, b = torch.randn(4, 10), torch.randn(2, 10)
    cost = BBox3DL1Cost(weight=3.0)(InstanceData(bboxes=a), InstanceData(bboxes=b))
    assert torch.allclose(cost, 3 * (a[:, None, :8] - b[None, :, :8]).abs().sum(-1), atol=1e-5)
    line, orders = torch.rand(4, 6, 2), torch.rand(2, 3, 6, 2)
    cost = OrderedPtsL1Cost(weight=2.0)(InstanceData(pts=line), InstanceData(shifted_pts=orders))
    expected = 2 * (line[:, None, None] - orders[None]).abs().sum((-1, -2))
    assert torch.allclose(cost, expected, atol=1e-5)
