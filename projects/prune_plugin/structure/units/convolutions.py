"""What goes when channels of convolutions and of their norms go."""

from torch import nn

from ..unit_group import Attr, Cut
from .finder import require


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


def output_channels(name: str, conv: nn.Module, width: int = 1) -> list[Cut]:
    """Cuts of the channels that a convolution writes, ``width`` to the unit."""
    check_convolution(name, conv)
    cuts = [Cut(f'{name}.weight', 0, width)]
    if conv.bias is not None:
        cuts.append(Cut(f'{name}.bias', 0, width))
    return cuts


def input_channels(name: str, conv: nn.Module, width: int = 1) -> list[Cut]:
    """Cuts of the channels that a convolution reads, for its offsets too if it is deformable."""
    check_convolution(name, conv)
    cuts = [Cut(f'{name}.weight', 1, width, side='out')]
    if type(conv).__name__ in DEFORMABLE:
        groups = conv.deform_groups
        require(groups == 1, f'{name} has {groups} groups of offsets')
        cuts.append(Cut(f'{name}.conv_offset.weight', 1, width, side='out'))
    return cuts


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is a convolution of any kind."""
    return hasattr(module, 'in_channels') and hasattr(module, 'kernel_size')


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module convolves each channel by itself, and gives as many as it takes."""
    return type(module).__name__ == 'Conv2d' and (
        module.groups == module.in_channels == module.out_channels > 1
    )


def depthwise_channels(name: str, conv: nn.Module) -> tuple[list[Cut], list[Attr]]:
    """Cuts and counts of a convolution of each channel by itself."""
    names = ('weight', 'bias')
    cuts = [Cut(f'{name}.{n}', 0) for n in names if getattr(conv, n) is not None]
    return cuts, [Attr(name, 'groups')]
