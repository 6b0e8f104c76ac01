"""Decoding against the original and against its definition."""

import losses_setup as setup
import pytest
import torch
from mmengine.registry import TASK_UTILS

from projects.prune_plugin.common.errors import UserError
from projects.vad.models import geometry

AGENTS = dict(
    type='CustomNMSFreeCoder',
    pc_range=setup.PC_RANGE,
    post_center_range=[-20, -35, -10.0, 20, 35, 10.0],
    max_num=100,
    num_classes=10,
)
ELEMENTS = dict(
    type='MapNMSFreeCoder',
    pc_range=setup.PC_RANGE,
    post_center_range=[-20, -35, -20, -35, 20, 35, 20, 35],
    max_num=50,
    num_classes=3,
)


def decode(config, preds, **kwargs):
    return TASK_UTILS.build(dict(config, **kwargs)).decode(preds)


@setup.needs_reference
def test_decoded_results_are_the_originals():
    preds = setup.det_input().synth_preds(2)
    expected = torch.load(setup.REFERENCE / 'gt_tiny.pt', weights_only=True)['synth_decoded']
    agents = dict(bboxes='bboxes_bottom_center', scores='scores', labels='labels', trajs='trajs')
    elements = dict(
        bboxes='map_bboxes_xyxy', scores='map_scores', labels='map_labels', pts='map_pts'
    )
    for config, names in ((AGENTS, agents), (ELEMENTS, elements)):
        for found, reference in zip(decode(config, preds), expected, strict=True):
            assert set(found) - {'mode_scores'} == set(names)
            for key, name in names.items():
                torch.testing.assert_close(found[key], reference[name], atol=1e-5, rtol=1e-6)


def test_agents_are_the_best_pairs_inside_the_range():
    preds = setup.formula_preds(queries=9)
    limits = [-4.0, -3, -3, 4, 12, 0.5]
    found = decode(AGENTS, preds, max_num=30, post_center_range=limits)
    assert len(found) == 2
    for b, result in enumerate(found):
        scores = preds['all_cls_scores'][-1, b].sigmoid()
        pairs = sorted(((float(s), i) for i, s in enumerate(scores.flatten())), reverse=True)[:30]
        expected = []
        for score, i in pairs:
            query, label = divmod(i, 10)
            x, y, w, length, z, h, sin, cos, vx, vy = preds['all_bbox_preds'][-1, b, query]
            center = torch.stack([x, y, z])
            lower, upper = torch.tensor(limits).chunk(2)
            if bool(((center >= lower) & (center <= upper)).all()):
                size = torch.stack([w, length, h]).exp()
                yaw = torch.atan2(sin, cos)
                box = [x, y, z - size[2] / 2, *size, yaw, vx, vy]
                expected.append((score, label, torch.stack(box), query))
        assert 0 < len(expected) < 30
        assert result['labels'].tolist() == [e[1] for e in expected]
        assert result['scores'].tolist() == pytest.approx([e[0] for e in expected])
        torch.testing.assert_close(result['bboxes'], torch.stack([e[2] for e in expected]))
        queries = [e[3] for e in expected]
        for key, name in (('trajs', 'all_traj_preds'), ('mode_scores', 'all_traj_cls_scores')):
            assert torch.equal(result[key], preds[name][-1, b][queries])


def test_lines_come_back_in_metres():
    preds = setup.formula_preds(lines=8)
    (result, _) = decode(ELEMENTS, preds, max_num=500)
    scores = preds['map_all_cls_scores'][-1, 0].sigmoid().flatten()
    order = scores.argsort(descending=True)
    assert torch.equal(result['scores'], scores[order])
    assert torch.equal(result['labels'], order % 3)
    points = preds['map_all_pts_preds'][-1, 0][order // 3]
    points = points * torch.tensor([30.0, 60.0]) - torch.tensor([15.0, 30.0])
    torch.testing.assert_close(result['pts'], points)
    boxes = torch.cat([points.amin(1), points.amax(1)], -1)
    torch.testing.assert_close(result['bboxes'], boxes, atol=1e-4, rtol=1e-5)


def test_lines_whose_box_leaves_the_range_are_dropped():
    preds = setup.formula_preds(lines=8)
    limits = [-2.0, -30, -2, -30, 15, 30, 15, 30]
    (result, _) = decode(ELEMENTS, preds, post_center_range=limits)
    (everything, _) = decode(ELEMENTS, preds)
    keep = everything['bboxes'][:, 0] >= -2
    assert 0 < keep.sum() < len(keep)
    assert torch.equal(result['pts'], everything['pts'][keep])


@pytest.mark.parametrize('config', [AGENTS, ELEMENTS])
def test_threshold_and_half_precision(config):
    preds = setup.formula_preds()
    preds = {k: v if v is None else v.half() for k, v in preds.items()}
    for result in decode(config, preds, score_threshold=0.6):
        assert len(result['scores']) and (result['scores'] > 0.6).all()
        assert all(v.dtype == torch.float32 for k, v in result.items() if k != 'labels')
    for result in decode(config, preds, score_threshold=1.0):
        assert len(result['bboxes']) == 0


@pytest.mark.parametrize('limits', [[-20, -35, -10], [20, -35, -10, -20, 35, 10]])
def test_wrong_ranges_are_named(limits):
    with pytest.raises(UserError, match='post_center_range is .*3 lower bounds and 3 upper bounds'):
        TASK_UTILS.build(dict(AGENTS, post_center_range=limits))


def test_codes_and_boxes_are_each_others_inverse():
    boxes = torch.rand(5, 9) * 3 + 0.1
    torch.testing.assert_close(geometry.decode_boxes(geometry.encode_boxes(boxes)), boxes)
    assert geometry.encode_boxes(boxes).shape == (5, 10)


def test_normalised_points_and_boxes():
    points = torch.tensor([[-15.0, -30.0], [15.0, 30.0], [0.0, 15.0]])
    fractions = geometry.normalize_points(points, setup.PC_RANGE)
    assert fractions.tolist() == [[0.0, 0.0], [1.0, 1.0], [0.5, 0.75]]
    assert torch.equal(geometry.denormalize_points(fractions, setup.PC_RANGE), points)
    box = torch.tensor([[-15.0, 0.0, 0.0, 30.0]])
    code = geometry.normalize_map_boxes(box, setup.PC_RANGE)
    assert code.tolist() == [[0.25, 0.75, 0.5, 0.5]]
    assert torch.equal(geometry.denormalize_map_boxes(code, setup.PC_RANGE), box)
