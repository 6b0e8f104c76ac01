"""How the losses behave: gradients, precision, empty truths, weights, distributed averages."""

import losses_setup as setup
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from projects.prune_plugin.calibration.loss import weighted_losses
from projects.prune_plugin.common.errors import UserError
from projects.vad.models import VAD
from projects.vad.models.losses import matched
from projects.vad.models.losses.vad_loss import task_of


def compute(preds, samples, **kwargs):
    return setup.build(**kwargs)(preds, samples, setup.CODE_WEIGHTS, setup.MAP_CODE_WEIGHTS)


def leaves(preds, dtype=torch.float32):
    return {
        k: v.detach().to(dtype).requires_grad_() if v is not None else v for k, v in preds.items()
    }


@pytest.mark.parametrize('agents', [0, 4])
@pytest.mark.parametrize('elements', [0, 3])
def test_every_prediction_gets_a_finite_gradient(agents, elements):
    """Also without a truth, or processes would disagree on what has a gradient."""
    preds = leaves(setup.formula_preds())
    samples = [setup.formula_sample(i, agents, elements) for i in range(2)]
    losses = compute(preds, samples)
    assert all(torch.isfinite(v) and v.shape == () for v in losses.values())
    assert all(v.requires_grad for v in losses.values())
    sum(losses.values()).backward()
    for key, value in preds.items():
        assert value is None or torch.isfinite(value.grad).all(), key
    if not agents:
        assert losses['loss_bbox'] == losses['loss_traj'] == 0 < losses['loss_cls']
    if not elements:
        assert losses['loss_map_pts'] == losses['loss_map_dir'] == 0 < losses['loss_map_cls']


def test_more_truths_than_queries():
    losses = compute(setup.formula_preds(batch=1, queries=6), [setup.formula_sample(agents=9)])
    assert all(torch.isfinite(v) for v in losses.values())


def test_one_sample_without_truth_beside_one_with():
    """Sums over the batch divided by its pairs: the empty sample adds background only."""
    preds = setup.formula_preds()
    both = compute(preds, [setup.formula_sample(0), setup.formula_sample(1, agents=0, elements=0)])
    first = {
        k: v if v is None else v[:1] if k == 'ego_fut_preds' else v[:, :1] for k, v in preds.items()
    }
    alone = compute(first, [setup.formula_sample(0)])
    for key in ('loss_bbox', 'loss_traj', 'loss_map_pts', 'loss_map_dir', 'd0.loss_bbox'):
        assert both[key] == pytest.approx(float(alone[key]))
    assert both['loss_cls'] > alone['loss_cls']


def test_a_box_without_extent_is_left_out_of_regression():
    good, bad = setup.formula_sample(), setup.formula_sample()
    bad.gt_instances_3d.bboxes_3d[1, 3] = 0.0
    preds = leaves(setup.formula_preds(batch=1))
    losses = compute(preds, [bad])
    assert losses['loss_bbox'] > 0 and losses['loss_bbox'] != compute(preds, [good])['loss_bbox']
    sum(losses.values()).backward()
    assert torch.isfinite(preds['all_bbox_preds'].grad).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_predictions_are_computed_in_float32(dtype):
    preds = leaves(setup.formula_preds(), dtype)
    samples = [setup.formula_sample(i) for i in range(2)]
    full = {k: v if v is None else v.detach().float() for k, v in preds.items()}
    losses = compute(preds, samples)
    for key, value in compute(full, samples).items():
        assert losses[key].dtype == torch.float32 and torch.equal(losses[key], value), key
    sum(losses.values()).backward()
    assert all(v is None or v.grad.dtype == dtype for v in preds.values())


def test_nothing_is_written_into_the_predictions():
    preds = setup.formula_preds()
    before = {k: v if v is None else v.clone() for k, v in preds.items()}
    compute(preds, [setup.formula_sample(i) for i in range(2)])
    assert all(v is None or torch.equal(v, before[k]) for k, v in preds.items())


def test_what_is_no_number_becomes_zero():
    preds = setup.formula_preds(batch=1)
    preds['ego_fut_preds'][0, 2, 3] = float('nan')
    assert compute(preds, [setup.formula_sample()])['loss_plan_reg'] == 0


def test_calibration_weights_scale_the_tasks_losses():
    preds, samples = setup.formula_preds(), [setup.formula_sample(i) for i in range(2)]
    plain = compute(preds, samples)
    factors = dict(detection=0.0, motion=2.0, map=3.0)
    weighted = weighted_losses(plain, factors, VAD.loss_task)
    for key, value in plain.items():
        assert weighted[key] == pytest.approx(float(value) * factors.get(task_of(key), 1.0)), key
    assert {task_of(key) for key in plain} == {'detection', 'motion', 'map', 'planning'}


def test_unknown_task():
    plain = compute(setup.formula_preds(), [setup.formula_sample(i) for i in range(2)])
    with pytest.raises(
        UserError, match=r"loss_weights: 'plan' matches nothing; tasks here are detection, "
    ):
        weighted_losses(plain, dict(plan=1.0), VAD.loss_task)


def test_average_factor_is_the_mean_over_processes(monkeypatch):
    preds, samples = setup.formula_preds(), [setup.formula_sample(i) for i in range(2)]
    alone = compute(preds, samples)
    monkeypatch.setattr(matched, 'reduce_mean', lambda number: number * 2)
    together = compute(preds, samples)
    for key, value in alone.items():
        factor = 1.0 if task_of(key) == 'planning' else 0.5
        assert together[key] == pytest.approx(float(value) * factor), key


def test_costs_weigh_as_their_losses_unless_told_otherwise():
    loss = setup.build()
    assert loss.detection.assigner.cls_cost.weight == 0.8
    assert loss.detection.assigner.reg_cost.weight == 0.1
    assert loss.map.assigner.pts_cost.weight == 0.4
    config = setup.stage_2()
    config['map']['assigner']['pts_cost']['weight'] = 7.0
    assert MODELS.build(config).map.assigner.pts_cost.weight == 7.0


def test_is_built_in_mmdet3ds_scope_and_holds_nothing_to_save():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        loss = setup.build()
    assert not loss.state_dict() and not list(loss.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_gpu_and_cpu_agree():
    samples = [setup.formula_sample(i) for i in range(2)]
    preds = setup.formula_preds()
    cpu = compute(preds, samples)
    preds = {k: v if v is None else v.cuda() for k, v in preds.items()}
    weights = setup.CODE_WEIGHTS.cuda(), setup.MAP_CODE_WEIGHTS.cuda()
    gpu = setup.build()(preds, [s.to('cuda') for s in samples], *weights)
    assert all(float(gpu[k]) == pytest.approx(float(v), rel=1e-4, abs=1e-6) for k, v in cpu.items())
