"""OpenMMLab's models without an example input, and their heads that only training or boxes reach."""

from copy import deepcopy

import pytest
import torch

from projects.prune_plugin import build_pruner, mask, slim
from projects.prune_plugin.methods.pruners.image_models import image_calls
from projects.prune_plugin.methods.pruners.unit_discovery import failure

pytest.importorskip('mmdet')


def built(cfg):
    import mmdet.models  # noqa: F401  registers them
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_linear_layers_of_sparse_rcnns_heads():
    conv = dict(
        type='DynamicConv', in_channels=16, feat_channels=8, out_channels=16, input_feat_shape=7
    )
    head = built(
        dict(
            type='DIIHead', num_classes=5, num_heads=2, feedforward_channels=48, in_channels=16,
            num_cls_fcs=2, num_reg_fcs=3, dynamic_conv_cfg=conv,
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        )
    )  # fmt: skip
    inputs = torch.randn(14, 16, 7, 7), torch.randn(2, 7, 16)
    plan = build_pruner(
        dict(units=[dict(type='BranchNeurons')], budget=dict(type='units', ratio=0.5))
    ).plan(head)
    names = ['cls_fcs.0', 'cls_fcs.3', 'reg_fcs.0', 'reg_fcs.3', 'reg_fcs.6']
    assert [group.name for group in plan.groups] == names
    with torch.no_grad():
        pairs = zip(
            slim(deepcopy(head), plan.state)(*inputs),
            mask(deepcopy(head), plan.state)(*inputs),
            strict=True,
        )
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('channels', [3, 6])
def test_an_image_for_a_detector_without_an_example(channels):
    """As many channels as the preprocessor has means for, or as the first convolution reads."""
    mean = [0.0] * 3 if channels == 3 else None
    preprocessor = dict(type='DetDataPreprocessor', mean=mean, std=mean and [1.0] * 3)
    model = built(
        dict(
            type='RetinaNet', data_preprocessor=preprocessor,
            backbone=dict(
                type='ResNet', depth=18, in_channels=channels, base_channels=8, out_indices=(1, 2, 3)
            ),
            neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=3),
            bbox_head=dict(
                type='RetinaHead', num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1,
                anchor_generator=dict(
                    type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8, 16, 32]
                ),
            ),
        )
    )  # fmt: skip
    call = next(call for call in image_calls(model) if not failure(model, call))
    assert call.args[0].shape == (1, channels, 224, 224)


def test_other_models_get_no_image():
    assert list(image_calls(torch.nn.Conv2d(3, 3, 1))) == []


def test_a_subclass_that_only_constructs_itself_otherwise_is_at_home():
    import mmdet.models.task_modules  # noqa: F401  registers the coders
    from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead
    from mmengine.registry import DefaultScope

    from projects.prune_plugin.structure.units.home_classes import is_home_class

    class Other(Shared2FCBBoxHead):
        def forward(self, x):
            return super().forward(x.flip(0))

    sizes = dict(in_channels=8, fc_out_channels=16, roi_feat_size=2, num_classes=3)
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert is_home_class(Shared2FCBBoxHead(**sizes))
        assert is_home_class(ConvFCBBoxHead(num_shared_fcs=1, **sizes))
        assert not is_home_class(Other(**sizes))


class SeveralCameras(torch.nn.Module):
    """As MMDetection3D's detectors of several cameras: the head wants to know where they are."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.data_preprocessor = nn.Identity()
        self.img_backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()
        )
        self.img_neck = nn.Sequential(nn.Conv2d(32, 24, 1), nn.ReLU(), nn.Conv2d(24, 8, 1))
        self.head = nn.Linear(8, 2)

    def forward(self, images, where):
        features = self.img_neck(self.img_backbone(images.flatten(0, 1)))
        return self.head(features.mean((2, 3)) + where.sum())


def test_backbones_of_several_cameras_are_followed_without_the_head():
    torch.manual_seed(0)
    model = SeveralCameras().eval()
    plan = build_pruner(dict(budget=dict(type='units', ratio=0.5))).plan(model)
    assert {(g.name, g.size) for g in plan.groups} == {
        ('img_backbone.0', 16), ('img_backbone.2', 32), ('img_neck.0', 24),
    }  # fmt: skip
    call = torch.randn(2, 6, 3, 32, 32), torch.randn(6)
    one, other = (cut(deepcopy(model), plan.state)(*call) for cut in (mask, slim))
    torch.testing.assert_close(one, other)
