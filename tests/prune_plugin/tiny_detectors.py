"""Small heads and backbones of mmdet and mmdet3d, and their parameter counts worked out by hand."""

from functools import partial

import torch
from mmengine.registry import DefaultScope
from tiny_models import Kept, drawn, resnet_count
from torch import nn

DCN = dict(type='DCNv2', deform_groups=1, fallback_on_stride=False)
GN = dict(type='GN', num_groups=4)
#: Stages of the residual net with deformable convolutions.
DEFORMED = (2, 4)


def randomised_offsets(model: nn.Module) -> nn.Module:
    """Offsets that aren't zero, as they are at the start: zeros would hide mistakes."""
    for name, parameter in model.named_parameters():
        if 'conv_offset.weight' in name:
            nn.init.normal_(parameter, std=0.05)
    return model


def deformed_resnet() -> nn.Module:
    """mmdet's ResNet-50 with DCNv2 in two of its stages."""
    from mmdet.models.backbones import ResNet

    stages = tuple(stage in DEFORMED for stage in (1, 2, 3, 4))
    return randomised_offsets(
        ResNet(50, base_channels=8, norm_eval=False, dcn=DCN, stage_with_dcn=stages)
    )


def deformed_resnet_count(kept: Kept) -> int:
    """Offsets and mask: 27 channels of 3 x 3 and their biases, read from what conv1 writes."""
    total = resnet_count(kept, depth=50, base=8, classes=0)
    for stage in DEFORMED:
        for block in range((3, 4, 6, 3)[stage - 1]):
            total += kept.get(f'layer{stage}.{block}.conv1', 8 * 2 ** (stage - 1)) * 9 * 27 + 27
    return total


def second() -> nn.Module:
    from mmdet3d.models.backbones import SECOND

    return SECOND(in_channels=4, out_channels=[6, 8], layer_nums=[2, 1], layer_strides=[2, 2])


def second_count(kept: Kept) -> int:
    a, b = kept.get('blocks.0.0', 6), kept.get('blocks.0.3', 6)
    c = kept.get('blocks.1.0', 8)
    first = 4 * a * 9 + 2 * a + a * b * 9 + 2 * b + b * 6 * 9 + 2 * 6
    return first + 6 * c * 9 + 2 * c + c * 8 * 9 + 2 * 8


class Head(nn.Module):
    """A head as a model of its own, on one level or several; ``name`` picks what comes out."""

    def __init__(self, package: str, kind: str, **kwargs):
        super().__init__()
        registry = __import__(f'{package}.registry', fromlist=['MODELS']).MODELS
        __import__(f'{package}.models')
        with DefaultScope.overwrite_default_scope(package):
            self.head = registry.build(dict(type=kind, **kwargs))
        randomised_offsets(self)

    def forward(self, *levels):
        single = type(self.head).__name__ == 'Shared2FCBBoxHead'
        return leaves(self.head(levels[0] if single else levels))


def leaves(output) -> list[torch.Tensor]:
    """All tensors within lists and dicts, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output or ()
    return [tensor for part in parts for tensor in leaves(part)]


def anchors() -> dict:
    return dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8])


def retina(norm: dict | None) -> nn.Module:
    return Head(
        'mmdet', 'RetinaHead', num_classes=3, in_channels=8, stacked_convs=2, feat_channels=12,
        anchor_generator=anchors(), norm_cfg=norm,
    )  # fmt: skip


def retina_count(kept: Kept, width: int = 1) -> int:
    """Two towers; under a group norm ``width`` channels are one unit, and convolutions have no bias."""
    total = 0
    for tower, out in (('cls', 3), ('reg', 4)):
        a, b = (width * kept.get(f'head.{tower}_convs.{i}.conv', 12 // width) for i in range(2))
        own = 1 if width == 1 else 2
        total += 8 * a * 9 + own * a + a * b * 9 + own * b + b * out * 9 + out
    return total


def rpn(convs: int) -> nn.Module:
    return Head(
        'mmdet', 'RPNHead', in_channels=8, feat_channels=12, num_convs=convs,
        anchor_generator=anchors(),
    )  # fmt: skip


def rpn_count(kept: Kept, convs: int) -> int:
    names = ['head.rpn_conv'] if convs == 1 else [f'head.rpn_conv.{i}.conv' for i in range(convs)]
    total, width = 0, 8
    for name in names:
        total += width * kept.get(name, 12) * 9 + kept.get(name, 12)
        width = kept.get(name, 12)
    return total + (width + 1) * (1 + 4)


def boxes() -> nn.Module:
    return Head(
        'mmdet', 'Shared2FCBBoxHead', in_channels=4, fc_out_channels=20, roi_feat_size=3,
        num_classes=3,
    )  # fmt: skip


def boxes_count(kept: Kept) -> int:
    a, b = kept.get('head.shared_fcs.0', 20), kept.get('head.shared_fcs.1', 20)
    return 36 * a + a + a * b + b + (b + 1) * (4 + 3 * 4)


def centers() -> nn.Module:
    return Head(
        'mmdet3d', 'CenterHead', in_channels=6, share_conv_channel=8,
        tasks=[dict(num_class=1, class_names=['a']), dict(num_class=2, class_names=['b', 'c'])],
        common_heads=dict(reg=(2, 2), height=(1, 2)),
        separate_head=dict(type='SeparateHead', init_bias=-2.19, final_kernel=3, head_conv=10),
        bbox_coder=dict(
            type='CenterPointBBoxCoder', pc_range=[0, 0], out_size_factor=4, voxel_size=[1, 1]
        ),
        loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
        loss_bbox=dict(type='mmdet.L1Loss', reduction='mean'),
        norm_bbox=True,
    )  # fmt: skip


def centers_count(kept: Kept) -> int:
    shared = kept.get('head.shared_conv.conv', 8)
    total = 6 * shared * 9 + 2 * shared
    for task, classes in ((0, 1), (1, 2)):
        for name, out in (('reg', 2), ('height', 1), ('heatmap', classes)):
            a = kept.get(f'head.task_heads.{task}.{name}.0.conv', 10)
            total += shared * a * 9 + 2 * a + a * out * 9 + out
    return total


def mono3d() -> nn.Module:
    return Head(
        'mmdet3d', 'FCOSMono3DHead', num_classes=3, in_channels=8, feat_channels=12, stacked_convs=2,
        strides=[4, 8], dcn_on_last_conv=True, centerness_branch=(8,), cls_branch=(12,),
        reg_branch=((12,), (), (12,), (12,), ()), dir_branch=(12,), pred_attrs=False,
        use_direction_classifier=True, conv_bias=True, norm_cfg=GN, group_reg_dims=(2, 1, 3, 1, 2),
        bbox_coder=dict(type='FCOS3DBBoxCoder', code_size=9), loss_attr=None,
    )  # fmt: skip


def mono3d_count(kept: Kept) -> int:
    """Units are groups of channels under a norm with 4 groups; all convolutions have biases."""

    def conv(read: int, write: int, taps: int = 9) -> int:
        return read * write * taps + write

    total = 0
    for tower in ('cls', 'reg'):
        a = 3 * kept.get(f'head.{tower}_convs.0.conv', 4)
        total += conv(8, a) + 2 * a + conv(a, 12) + 2 * 12 + conv(a, 27)
    before = {
        'cls_prev': (12, 3), 'reg_prevs.0': (12, 2), 'reg_prevs.2': (12, 3), 'reg_prevs.3': (12, 1),
        'dir_cls_prev': (12, 2), 'centerness_prev': (8, 1),
    }  # fmt: skip
    for name, (width, out) in before.items():
        a = width // 4 * kept.get(f'head.conv_{name}.0.conv', 4)
        total += conv(12, a) + 2 * a + conv(a, out, 1)
    return total + conv(12, 1, 1) + conv(12, 2, 1) + 2 * 3  # branches without a stack, and scales


pillars = partial(drawn, (2, 4, 12, 16))
regions = partial(drawn, (5, 4, 3, 3))
two_levels = partial(drawn, (2, 8, 8, 6), (2, 8, 4, 3))
bird_view = partial(drawn, (2, 6, 8, 6))
