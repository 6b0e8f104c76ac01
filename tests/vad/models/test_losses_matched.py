"""Losses of matched agents and map elements against their definitions, written out in loops."""

import math

import losses_setup as setup
import pytest
import torch
from mmengine.registry import MODELS

from projects.vad.models.assigners import with_orders
from projects.vad.models.assigners.hungarian import match
from projects.vad.models.losses.detection import best_modes
from projects.vad.models.losses.points import PtsDirCosLoss, PtsL1Loss, direction_cosine_distance
from projects.vad.structures import with_gravity_center


def focal_sum(logits, labels):
    """Focal loss (gamma 2, alpha 0.25) over all queries and classes."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        for c, x in enumerate(row):
            p = 1 / (1 + math.exp(-x))
            total += (
                -0.25 * (1 - p) ** 2 * math.log(p)
                if c == label
                else (-0.75 * p**2 * math.log(1 - p))
            )
    return total


def box_code(box):
    x, y, z, w, length, h, yaw, vx, vy = box
    logs = [math.log(w), math.log(length)]
    return [x, y, *logs, z, math.log(h), math.sin(yaw), math.cos(yaw), vx, vy]


@pytest.fixture
def case():
    samples = [setup.formula_sample(0, agents=4), setup.formula_sample(1, agents=2, elements=3)]
    return setup.formula_preds(queries=12, lines=8), samples


def one_layer(matches, layer):
    fields = matches.batch, matches.query, matches.gt
    return zip(*(field[layer].tolist() for field in fields), strict=True)


def test_detection_and_motion(case):
    preds, samples = case
    loss = setup.build().detection
    gts = [s.gt_instances_3d for s in samples]
    matches = match(loss.costs(preds, gts))
    found = loss(preds, gts, setup.CODE_WEIGHTS, matches)
    boxes = torch.cat([with_gravity_center(gt.bboxes_3d) for gt in gts]).tolist()
    labels = torch.cat([gt.labels_3d for gt in gts]).tolist()
    attributes = torch.cat([gt.attr_labels for gt in gts])
    for layer, prefix in ((0, 'd0.'), (1, '')):
        targets = [[10] * 12, [10] * 12]
        distance = 0.0
        for b, q, g in one_layer(matches, layer):
            targets[b][q] = labels[g]
            code = preds['all_bbox_preds'][layer, b, q].tolist()
            for i, (x, y) in enumerate(zip(code, box_code(boxes[g]), strict=True)):
                distance += abs(x - y) * (0.2 if i > 7 else 1.0)
        classes = sum(focal_sum(preds['all_cls_scores'][layer, b], targets[b]) for b in range(2))
        assert found[f'{prefix}loss_bbox'] == pytest.approx(0.1 * distance / 6, rel=1e-5)
        assert found[f'{prefix}loss_cls'] == pytest.approx(0.8 * classes / 6, rel=1e-5)

    modes, error = [[6] * 12, [6] * 12], 0.0
    for b, q, g in one_layer(matches, 1):
        truth, seen = attributes[g, :12].view(6, 2), attributes[g, 12:18]
        pred = preds['all_traj_preds'][-1, b, q].view(6, 6, 2)
        ends = [float((mode.sum(0) - truth.sum(0)).norm() * seen[-1]) for mode in pred]
        modes[b][q] = ends.index(min(ends))
        error += float(((pred[modes[b][q]] - truth).abs() * seen[:, None]).sum())
    classes = sum(focal_sum(preds['all_traj_cls_scores'][-1, b], modes[b]) for b in range(2))
    assert found['loss_traj'] == pytest.approx(0.2 * error / 6, rel=1e-5)
    assert found['loss_traj_cls'] == pytest.approx(0.2 * classes / 6, rel=1e-5)
    assert 'd0.loss_traj' not in found


def test_best_mode_of_a_track_that_ends_early_is_the_first():
    trajs, targets = torch.zeros(2, 3, 6, 2), torch.ones(2, 6, 2)
    trajs[:, 2] = 1.0
    masks = torch.ones(2, 6)
    masks[1, -1] = 0.0
    assert best_modes(trajs, targets, masks).tolist() == [2, 0]


def test_map(case):
    preds, samples = case
    config = setup.stage_2()['map']
    config |= dict(
        loss_map_bbox=dict(type='mmdet.L1Loss', loss_weight=3.0),
        loss_map_iou=dict(type='mmdet.GIoULoss', loss_weight=2.0),
    )
    loss = MODELS.build(dict(setup.stage_2(), map=config)).map
    gts = [s.gt_map for s in samples]
    costs, orders = loss.costs(preds, gts)
    matches = with_orders(match(costs), orders)
    found = loss(preds, gts, torch.tensor([1.0, 2.0, 1.0, 1.0]), matches)
    labels = torch.cat([gt.labels for gt in gts]).tolist()
    shifted, boxes = (torch.cat([gt[k] for gt in gts]) for k in ('shifted_pts', 'bboxes'))
    size, corner = torch.tensor([30.0, 60.0]), torch.tensor([-15.0, -30.0])
    for layer, prefix in ((0, 'd0.'), (1, '')):
        targets, sums = [[3] * 8, [3] * 8], dict(pts=0.0, dir=0.0, bbox=0.0, iou=0.0)
        for (b, q, g), order in zip(
            one_layer(matches, layer), matches.order[layer].tolist(), strict=True
        ):
            targets[b][q] = labels[g]
            pred = preds['map_all_pts_preds'][layer, b, q]
            truth = shifted[g, order]
            sums['pts'] += float((pred - (truth - corner) / size).abs().sum())
            for u, v in zip((pred * size).diff(dim=0), truth.diff(dim=0), strict=True):
                sums['dir'] += 1 - float(u @ v / (u.norm() * v.norm()))
            box = preds['map_all_bbox_preds'][layer, b, q]
            true_box = (boxes[g].view(2, 2) - corner) / size
            true_box = torch.cat([true_box.mean(0), true_box[1] - true_box[0]])
            sums['bbox'] += float(((box - true_box).abs() * torch.tensor([1, 2, 1, 1])).sum())
            lower, upper = ((box[:2] + s * box[2:] / 2) * size + corner for s in (-1, 1))
            giou = generalized_iou([*lower.tolist(), *upper.tolist()], boxes[g].tolist())
            sums['iou'] += (1 - giou) * 1.25
        classes = sum(
            focal_sum(preds['map_all_cls_scores'][layer, b], targets[b]) for b in range(2)
        )
        assert found[f'{prefix}loss_map_cls'] == pytest.approx(0.8 * classes / 7, rel=1e-5)
        for key, weight in dict(pts=0.4, dir=0.005, bbox=3.0, iou=2.0).items():
            expected = weight * sums[key] / 7
            assert found[f'{prefix}loss_map_{key}'] == pytest.approx(expected, rel=1e-4), key


def generalized_iou(a, b):
    def area(box):
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    inner = [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
    outer = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
    union = area(a) + area(b) - area(inner)
    return area(inner) / union - (area(outer) - union) / area(outer)


def test_point_losses_take_weights_and_average():
    pred, target = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    weight = torch.tensor([1.0, 0.0, 2.0])[:, None, None].expand(3, 5, 2)
    expected = 2 * float(((pred - target).abs() * weight).sum()) / 4
    assert PtsL1Loss(2.0)(pred, target, weight, 4) == pytest.approx(expected, rel=1e-5)
    cosine = torch.cosine_similarity(pred, target, dim=-1)
    expected = 2 * float(((1 - cosine) * weight[..., 0]).sum()) / 4
    assert PtsDirCosLoss(2.0)(pred, target, weight[..., 0], 4) == pytest.approx(expected, rel=1e-4)


def test_a_vector_without_length_is_at_distance_one():
    pred = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    distance = direction_cosine_distance(pred, target)
    assert distance.tolist() == pytest.approx([1.0, 0.0, 2.0], abs=1e-6)
    distance.sum().backward()
    assert torch.isfinite(pred.grad).all()
