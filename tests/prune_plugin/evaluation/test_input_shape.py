"""An ``input_shape`` that the model doesn't take is the user's to mend, and trying it changes nothing."""

from contextlib import suppress

import pytest
import torch
from torch import nn

from projects.prune_plugin import UserError, build_pruner
from projects.prune_plugin.common.errors import InfeasibleBudgetError
from projects.prune_plugin.common.eval_mode import evaluation_mode
from projects.prune_plugin.evaluation.profiling import profile


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.branch = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    def forward(self, x):
        return self.branch(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize('budget', ['flops', 'latency'])
@pytest.mark.parametrize('shape', [(7, 8, 8), (3,), ()])
def test_an_input_shape_that_the_model_does_not_take_is_named(budget, shape):
    model = Images().train()
    before = model.branch[1].running_mean.clone()
    pruner = build_pruner(dict(budget=dict(type=budget), profile=dict(input_shape=shape)))
    with pytest.raises(
        UserError, match=r'profile\.input_shape is \[.* fails on one tensor .*\(\w+Error: '
    ) as e:
        pruner.plan(model)
    assert '\n' not in str(e.value)
    assert model.training and torch.equal(model.branch[1].running_mean, before)


def test_a_fitting_input_shape_leaves_the_model_alone():
    model = Images().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruner = build_pruner(
        dict(budget=dict(type='flops', ratio=0.01), profile=dict(input_shape=(3, 8, 8)))
    )
    pruner.plan(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with evaluation_mode(model):
        assert model(torch.ones(1, 3, 4, 4)).shape == (1, 2)


@pytest.mark.parametrize('budget', [dict(type='flops'), dict(type='latency', seconds=0.01)])
def test_measuring_leaves_each_module_in_its_mode(budget):
    model = Images().train()
    model.branch[1].eval()  # a frozen norm
    settings = dict(input_shape=(3, 8, 8), seconds=0.01)
    pruner = build_pruner(dict(budget=dict(ratio=0.001, **budget), profile=settings))
    with suppress(InfeasibleBudgetError):  # by latencies as noisy as those of a busy machine
        pruner.plan(model)
    profile([model], pruner.profile)
    assert [m.training for m in model.modules()] == [
        m is not model.branch[1] for m in model.modules()
    ]


def test_a_detector_whose_forward_pass_reads_truth():
    """mmdet's YOLACT matches boxes in it: it is pruned, without FLOPs, which is said."""
    pytest.importorskip('mmdet')
    import mmdet.models  # noqa: F401  registers them
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    anchors = dict(
        type='AnchorGenerator', octave_base_scale=3, scales_per_octave=1, base_sizes=[8, 16],
        ratios=[1.0], strides=[8, 16], centers=[(4, 4), (8, 8)],
    )  # fmt: skip
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    coder = dict(
        type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]
    )
    cfg = dict(
        type='YOLACT',
        backbone=dict(
            type='ResNet', depth=18, num_stages=2, out_indices=(0, 1), base_channels=8,
            strides=(1, 2), dilations=(1, 1),
        ),
        neck=dict(type='FPN', in_channels=[8, 16], out_channels=8, num_outs=2),
        bbox_head=dict(
            type='YOLACTHead', num_classes=2, in_channels=8, feat_channels=8, num_protos=4,
            anchor_generator=anchors, bbox_coder=coder, loss_cls=loss,
            loss_bbox=dict(type='SmoothL1Loss'), num_head_convs=1,
        ),
        mask_head=dict(
            type='YOLACTProtonet', num_classes=2, in_channels=8, num_protos=4, proto_channels=(8, 4),
            proto_kernel_sizes=(3, 1), loss_mask_weight=1.0,
        ),
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg).eval()
    shape = dict(profile=dict(input_shape=(3, 64, 64)))
    plan = build_pruner(dict(budget=dict(ratio=0.2), **shape)).plan(model)
    assert plan.result.achieved >= 0.2
    (measured,) = profile([model], build_pruner(shape).profile)
    assert measured['params'] > 0 and measured['flops'] is measured['latency_ms'] is None
    with pytest.raises(UserError, match='a FLOPs budget needs a forward pass on images alone'):
        build_pruner(dict(budget=dict(type='flops'), **shape)).plan(model)
