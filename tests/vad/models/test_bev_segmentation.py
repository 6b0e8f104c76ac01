"""The auxiliary map of what stands where: its truth, its gradients, and that it stays out of a model."""

import math

import numpy as np
import pytest
import tiny_vad as tiny
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData

from projects.vad.models import BEVSegmentation

RANGE = [-15.0, -30.0, -2.0, 15.0, 30.0, 2.0]
ARGS = dict(
    type='BEVSegmentation', pc_range=RANGE, bev_h=tiny.BEV_H, bev_w=tiny.BEV_W,
    embed_dims=tiny.DIMS, agents=[[0], [8]],
)  # fmt: skip


def helper(**changes):
    return BEVSegmentation(**{**{k: v for k, v in ARGS.items() if k != 'type'}, **changes})


def a_sample(boxes, labels, lines=(), line_labels=()):
    points = torch.tensor(lines, dtype=torch.float32).reshape(len(lines), 1, 2, 2)
    return Det3DDataSample(
        gt_instances_3d=InstanceData(
            bboxes_3d=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 9),
            labels_3d=torch.tensor(labels, dtype=torch.long),
        ),
        gt_map=InstanceData(shifted_pts=points, labels=torch.tensor(line_labels, dtype=torch.long)),
    )


@pytest.mark.parametrize('degrees', [0, 30, 90, 200])
def test_agents_cover_their_footprint(degrees):
    """Cell by cell: a cell is covered where its centre lies in the box, give or take its border."""
    yaw = math.radians(degrees)
    box = [3.0, -4.0, -1.8, 4.0, 12.0, 1.6, -yaw - math.pi / 2, 0, 0]
    covered = helper(bev_h=40, bev_w=20, scale=3).truth(a_sample([box], [0]))
    assert covered.shape == (5, 120, 60) and not covered[1:].any()
    y, x = np.meshgrid(np.arange(120) * 0.5 - 29.75, np.arange(60) * 0.5 - 14.75, indexing='ij')
    ahead = (x - 3) * math.cos(yaw) + (y + 4) * math.sin(yaw)
    left = -(x - 3) * math.sin(yaw) + (y + 4) * math.cos(yaw)
    inside = np.maximum(abs(ahead) - 6, abs(left) - 2)
    assert covered[0][inside < -0.5].all() and not covered[0][inside > 0.5].any()


def test_labels_and_lines_go_to_their_layers():
    box = [0.0, 0.0, -1.8, 2.0, 4.0, 1.6, 0.0, 0, 0]
    line = [[-10.0, -20.0], [-10.0, 20.0]]
    covered = helper(scale=4).truth(a_sample([box, box], [8, 3], [line], [2]))
    assert [bool(layer.any()) for layer in covered] == [False, True, False, False, True]
    rows, columns = np.nonzero(covered[4])
    assert set(columns) == {(-10 + 15) * tiny.BEV_W * 4 // 30}
    assert 40 / 60 * tiny.BEV_H * 4 <= len(rows) <= 40 / 60 * tiny.BEV_H * 4 + 2


def test_nothing_there_and_everything_far_away():
    far = [100.0, 0.0, -1.8, 2.0, 4.0, 1.6, 0.0, 0, 0]
    for sample in (a_sample([], []), a_sample([far], [0])):
        losses = helper()(torch.randn(1, tiny.BEV_H * tiny.BEV_W, tiny.DIMS), [sample])
        assert not helper().truth(sample).any() and torch.isfinite(losses['loss_bev_segmentation'])


def test_the_focal_loss_is_mmdets():
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    logits, target = torch.randn(2, 1, 6, 5), (torch.rand(2, 1, 6, 5) > 0.7).float()
    expected = py_sigmoid_focal_loss(logits, target, gamma=2.0, alpha=0.3, reduction='sum')
    found = helper(alpha=0.3).focal(logits, target)
    torch.testing.assert_close(found, expected / target.sum())


def test_it_trains_the_encoder_and_is_not_part_of_the_model():
    model, plain = tiny.build(auxiliary=[ARGS]).train(), tiny.build()
    extra = model.state_dict().keys() - plain.state_dict().keys()
    assert extra == {'auxiliary.0.classify.weight', 'auxiliary.0.classify.bias'}
    samples = [tiny.sample(tiny.relative([tiny.frame(0), tiny.frame(1)]), truth=True)]
    losses = model(dict(img=tiny.images(length=2)), samples, mode='loss')
    losses['loss_bev_segmentation'].backward()
    touched = {n.split('.')[0] for n, p in model.named_parameters() if p.grad is not None}
    assert touched == {'img_backbone', 'img_neck', 'pts_bbox_head', 'auxiliary'}
    assert model.loss_task('loss_bev_segmentation') == 'auxiliary'
    out = model.eval()(dict(img=tiny.images()), [tiny.sample([tiny.frame(0)])], mode='tensor')
    assert 'loss_bev_segmentation' not in out
