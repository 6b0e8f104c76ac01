"""Small parts of mmdet's one-stage detectors, and their parameter counts worked out by hand."""

from functools import partial

from tiny_detectors import GN, Head, anchors
from tiny_models import Kept, drawn, resnet_count
from torch import nn


def csp(cspnext: bool = False, identity: bool = True) -> nn.Module:
    """A cross stage partial layer of YOLOX, or of RTMDet with its attention over channels."""
    from mmdet.models.layers import CSPLayer

    return CSPLayer(
        7, 11, expand_ratio=0.6, num_blocks=2, add_identity=identity, use_cspnext_block=cspnext,
        channel_attention=cspnext, act_cfg=dict(type='SiLU'),
    )  # fmt: skip


def csp_count(kept: Kept, cspnext: bool = False) -> int:
    """Both branches are 6 wide; CSPNeXt's second convolution is one per channel and one of points."""
    main, short = kept.get('main_conv.conv', 6), kept.get('short_conv.conv', 6)
    total = (7 + 2) * (main + short) + (main + short + 2) * 11
    for block in range(2):
        inner = kept.get(f'blocks.{block}.conv1.conv', 6)
        if cspnext:
            total += main * inner * 9 + 2 * inner + inner * 25 + 2 * inner + inner * main + 2 * main
        else:
            total += main * inner + 2 * inner + inner * main * 9 + 2 * main
    return total + ((main + short) * (main + short + 1) if cspnext else 0)


def darknet() -> nn.Module:
    """A residual block of Darknet, and a block of YOLOv3's neck."""
    from mmdet.models.backbones.darknet import ResBlock
    from mmdet.models.necks.yolo_neck import DetectionBlock

    return nn.Sequential(ResBlock(8), DetectionBlock(8, 5))


def darknet_count(kept: Kept) -> int:
    half = kept.get('0.conv1.conv', 4)
    total = 8 * half + 2 * half + half * 8 * 9 + 2 * 8
    read = 8
    for i, dense in enumerate((5, 10, 5, 10, 5), start=1):
        write = kept.get(f'1.conv{i}.conv', dense) if i < 5 else 5
        total += read * write * (1 if i % 2 else 9) + 2 * write
        read = write
    return total


def mobile() -> nn.Module:
    """A widening block of MobileNetV2, and one that doesn't widen."""
    from mmdet.models.layers import InvertedResidual

    return nn.Sequential(
        InvertedResidual(6, 6, 14, act_cfg=dict(type='ReLU6')),
        InvertedResidual(6, 8, 6, stride=2, with_expand_conv=False),
    )


def mobile_count(kept: Kept) -> int:
    wide = kept.get('0.expand_conv.conv', 14)
    first = 6 * wide + 2 * wide + wide * 9 + 2 * wide + wide * 6 + 2 * 6
    return first + 6 * 9 + 2 * 6 + 6 * 8 + 2 * 8


def yolox() -> nn.Module:
    return Head(
        'mmdet', 'YOLOXHead', num_classes=3, in_channels=8, feat_channels=10, strides=(4, 8)
    )


def yolox_count(kept: Kept) -> int:
    total = 0
    for level in range(2):
        for tower, out in (('cls', 3), ('reg', 4 + 1)):
            name = f'head.multi_level_{tower}_convs.{level}'
            a, b = (kept.get(f'{name}.{i}.conv', 10) for i in range(2))
            total += 8 * a * 9 + 2 * a + a * b * 9 + 2 * b + (b + 1) * out
    return total


def yolov3() -> nn.Module:
    return Head(
        'mmdet', 'YOLOV3Head', num_classes=2, in_channels=(8, 8), out_channels=(10, 6),
        anchor_generator=dict(
            type='YOLOAnchorGenerator', base_sizes=[[(9, 9)], [(3, 3)]], strides=[8, 4]
        ),
        featmap_strides=(8, 4),
    )  # fmt: skip


def yolov3_count(kept: Kept) -> int:
    total = 0
    for level, dense in enumerate((10, 6)):
        a = kept.get(f'head.convs_bridge.{level}.conv', dense)
        total += 8 * a * 9 + 2 * a + (a + 1) * (5 + 2)
    return total


def dense_head(kind: str) -> nn.Module:
    own = dict(
        FCOSHead=dict(strides=[4, 8], norm_cfg=GN),
        ATSSHead=dict(anchor_generator=anchors(), norm_cfg=dict(type='BN')),
        GFLHead=dict(anchor_generator=anchors(), reg_max=4, norm_cfg=None),
    )[kind]
    return Head(
        'mmdet', kind, num_classes=3, in_channels=8, feat_channels=12, stacked_convs=2, **own
    )


def dense_head_count(kept: Kept, kind: str) -> int:
    """Readers are 3 x 3; FCOS' centres read the tower for classes, as its default has it.

    Its units are groups of three channels. All have a learnt scale per level; convolutions under a norm
    have no bias.
    """
    width = 3 if kind == 'FCOSHead' else 1
    beside = 1 if kind == 'GFLHead' else 2
    readers = dict(FCOSHead=(3 + 1, 4), ATSSHead=(3, 4 + 1), GFLHead=(3, 4 * 5))[kind]
    total = 2
    for tower, out in zip(('cls', 'reg'), readers, strict=True):
        a, b = (width * kept.get(f'head.{tower}_convs.{i}.conv', 12 // width) for i in range(2))
        total += 8 * a * 9 + beside * a + a * b * 9 + beside * b + b * out * 9 + out
    return total


def normed_resnet() -> nn.Module:
    """mmdet's ResNet-18 with group norms."""
    from mmdet.models.backbones import ResNet

    return ResNet(18, base_channels=8, norm_cfg=GN, norm_eval=False)


def normed_resnet_count(kept: Kept) -> int:
    widths = {name: value * 2 ** (int(name[5]) - 1) * 2 for name, value in kept.items()}
    return resnet_count(widths, depth=18, base=8, classes=0)


class Dla(nn.Module):
    """Two blocks of mmdet3d's DLA, which is SMOKE's backbone; their norms have no names."""

    def __init__(self):
        super().__init__()
        from mmdet3d.models.backbones.dla import BasicBlock

        self.blocks = nn.Sequential(
            BasicBlock(6, 6, dict(type='BN'), dict(type='Conv')),
            BasicBlock(6, 6, dict(type='GN', num_groups=4), dict(type='Conv')),
        )

    def forward(self, x):
        return self.blocks(x)


def dla_count(kept: Kept) -> int:
    a, b = kept.get('blocks.0.conv1', 6), 3 * kept.get('blocks.1.conv1', 2)
    return sum(6 * n * 9 + 2 * n + n * 6 * 9 + 2 * 6 for n in (a, b))


def ssd() -> nn.Module:
    """mmdet's smallest VGG for SSD."""
    from mmdet.models.backbones import SSDVGG

    return SSDVGG(11, out_indices=(3, 4), out_feature_indices=(12, 24))


maps = partial(drawn, (2, 7, 9, 8))
wide_maps = partial(drawn, (2, 8, 9, 8))
narrow_maps = partial(drawn, (2, 6, 9, 8))
