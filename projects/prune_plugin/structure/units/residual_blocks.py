"""Inner channels of residual blocks, which are used only inside the block."""

from itertools import pairwise

from torch import nn

from ...common.registry import UNITS
from ..unit_group import UnitGroup
from .conv_chains import hidden_channels, select_layers
from .finder import NotPrunable, UnitFinder, require


@UNITS.register_module()
class BottleneckChannels(UnitFinder):
    """Inner channels of ``BasicBlock`` and ``Bottleneck`` (torchvision, mmdet, mmpretrain, timm).

    Example:
        >>> prune_cfg = dict(units=[dict(type='BottleneckChannels')])
    """


@BottleneckChannels.layout('BasicBlock', 'Bottleneck')
def residual_block(name: str, block: nn.Module) -> list[UnitGroup]:
    """conv1 -> conv2 (-> conv3); layers in between must process every channel separately."""
    require(not getattr(block, 'with_plugins', False), 'plugins stand between the convolutions')
    for between in ('aa', 'drop_block'):
        extra = getattr(block, between, None)
        require(extra is None or isinstance(extra, nn.Identity), f'{between} stands in between')
    convs = [
        c for c in ('conv1', 'conv2', 'conv3') if isinstance(getattr(block, c, None), nn.Module)
    ]
    require(len(convs) >= 2, 'fewer than two convolutions')
    groups = []
    for i, (first, second) in enumerate(pairwise(convs), start=1):
        producer, norm, consumer = select_layers(block, name, first, norm_name(block, i), second)
        groups.append(hidden_channels(producer, [norm], [consumer], name))
    return groups


def norm_name(block: nn.Module, number: int) -> str:
    """Attribute name of the norm after convolution ``number`` of a block.

    Raises:
        NotPrunable: there is none.
    """
    declared = str(getattr(block, f'norm{number}_name', ''))
    for name in (declared, f'bn{number}', f'norm{number}'):
        if name in block._modules:
            return name
    raise NotPrunable(f'no norm after conv{number}')
