"""Cuts for the channels of convolutions and batch norms."""

from torch import nn

from ..unit_group import Attr, Cut
from .finder import require


def norm_cuts(prefix: str, norm: nn.Module) -> list[Cut]:
    """Cuts of a batch norm: scale, shift and running statistics, one feature per unit."""
    names = ('weight', 'bias', 'running_mean', 'running_var')
    return [Cut(f'{prefix}.{n}', 0) for n in names if getattr(norm, n, None) is not None]


#: Deformable convolutions that compute offsets and masks from their own input by ``conv_offset``.
DEFORMABLE = ('DeformConv2dPack', 'ModulatedDeformConv2dPack')


def check_convolution(path: str, conv: nn.Module) -> None:
    """Raise :class:`NotPrunable` unless input and output channels can be removed independently."""
    kind = type(conv).__name__
    require(kind in ('Conv1d', 'Conv2d', 'Conv3d', *DEFORMABLE), f'{path} is a {kind}')
    require(conv.groups == 1, f'{path} has {conv.groups} groups')


def output_channel_cuts(name: str, conv: nn.Module, width: int = 1) -> list[Cut]:
    """Cuts of the output channels of a convolution, ``width`` channels per unit."""
    check_convolution(name, conv)
    cuts = [Cut(f'{name}.weight', 0, width)]
    if conv.bias is not None:
        cuts.append(Cut(f'{name}.bias', 0, width))
    return cuts


def input_channel_cuts(name: str, conv: nn.Module, width: int = 1) -> list[Cut]:
    """Cuts of the input channels of a convolution, including ``conv_offset`` of a deformable one."""
    check_convolution(name, conv)
    cuts = [Cut(f'{name}.weight', 1, width, side='out')]
    if type(conv).__name__ in DEFORMABLE:
        groups = conv.deform_groups
        require(groups == 1, f'{name} has {groups} groups of offsets')
        cuts.append(Cut(f'{name}.conv_offset.weight', 1, width, side='out'))
    return cuts


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is a convolution of any kind, judged by its attributes."""
    return hasattr(module, 'in_channels') and hasattr(module, 'kernel_size')


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a depthwise ``Conv2d`` with as many output as input channels."""
    return type(module).__name__ == 'Conv2d' and (
        module.groups == module.in_channels == module.out_channels > 1
    )


def depthwise_cuts(name: str, conv: nn.Module) -> tuple[list[Cut], list[Attr]]:
    """Cuts of a depthwise convolution, and its attribute ``groups``, which counts the channels."""
    names = ('weight', 'bias')
    cuts = [Cut(f'{name}.{n}', 0) for n in names if getattr(conv, n) is not None]
    return cuts, [Attr(name, 'groups')]
