"""Inner channels of residual blocks: they end inside the block, so nothing else changes width."""

from torch import nn

from ..registry import UNITS
from .base import Cut, UnitGroup
from .finder import UnitFinder, join, require


@UNITS.register_module()
class BottleneckChannels(UnitFinder):
    """Inner channels of ``BasicBlock`` and ``Bottleneck`` (torchvision, mmdet, mmpretrain, timm).

    Example:
        >>> prune_cfg = dict(units=[dict(type='BottleneckChannels')])
    """


def norm_cuts(prefix: str, norm: nn.Module) -> list[Cut]:
    """Cuts of a batch norm: scale, shift and running statistics."""
    names = ('weight', 'bias', 'running_mean', 'running_var')
    return [Cut(f'{prefix}.{n}', 0) for n in names if getattr(norm, n, None) is not None]


#: Deformable convolutions that read their offsets, and their mask, from what they read.
DEFORMABLE = ('DeformConv2dPack', 'ModulatedDeformConv2dPack')


def check_convolution(path: str, conv: nn.Module) -> None:
    """Refuse convolutions whose input and output channels can't go one by one."""
    kind = type(conv).__name__
    require(kind in ('Conv2d', *DEFORMABLE), f'{path} is a {kind}')
    require(conv.groups == 1, f'{path} has {conv.groups} groups')


def written_channels(name: str, conv: nn.Module, width: int = 1) -> list[Cut]:
    """Cuts of the channels that a convolution writes, ``width`` to the unit."""
    check_convolution(name, conv)
    cuts = [Cut(f'{name}.weight', 0, width)]
    if conv.bias is not None:
        cuts.append(Cut(f'{name}.bias', 0, width))
    return cuts


def reading_channels(name: str, conv: nn.Module, width: int = 1) -> list[Cut]:
    """Cuts of the channels that a convolution reads, for its offsets too if it is deformable."""
    check_convolution(name, conv)
    cuts = [Cut(f'{name}.weight', 1, width, side='out')]
    if type(conv).__name__ in DEFORMABLE:
        groups = conv.deform_groups
        require(groups == 1, f'{name} has {groups} groups of offsets')
        cuts.append(Cut(f'{name}.conv_offset.weight', 1, width, side='out'))
    return cuts


def inner_group(name: str, block: nn.Module, producer: str, norm: str, consumer: str) -> UnitGroup:
    """The channels between two convolutions with a batch norm behind the first."""
    first, second = block.get_submodule(producer), block.get_submodule(consumer)
    for path, conv in ((producer, first), (consumer, second)):
        check_convolution(path, conv)
    bn = block.get_submodule(norm)
    require(isinstance(bn, nn.modules.batchnorm._BatchNorm), f'{norm} is a {type(bn).__name__}')
    cuts = written_channels(join(name, producer), first)
    cuts += norm_cuts(join(name, norm), bn)
    cuts += reading_channels(join(name, consumer), second)
    size = first.out_channels
    return UnitGroup(join(name, producer), 'channel', size, tuple(cuts), name, least=1)


@BottleneckChannels.layout('BasicBlock', 'Bottleneck')
def residual_block(name: str, block: nn.Module) -> list[UnitGroup]:
    """conv1 -> conv2 (-> conv3); what stands between must keep channels apart."""
    require(not getattr(block, 'with_plugins', False), 'plugins stand between the convolutions')
    for between in ('aa', 'drop_block'):
        extra = getattr(block, between, None)
        require(extra is None or isinstance(extra, nn.Identity), f'{between} stands in between')
    convs = [
        c for c in ('conv1', 'conv2', 'conv3') if isinstance(getattr(block, c, None), nn.Module)
    ]
    require(len(convs) >= 2, 'fewer than two convolutions')
    return [
        inner_group(name, block, first, getattr(block, f'norm{i}_name', f'bn{i}'), second)
        for i, (first, second) in enumerate(zip(convs, convs[1:], strict=False), start=1)
    ]
