"""Inner channels of residual blocks: they end inside the block, so nothing else changes width."""

from itertools import pairwise

from torch import nn

from ...common.registry import UNITS
from ..unit_group import UnitGroup
from .conv_chains import hidden_channels, layers_of
from .finder import NotPrunable, UnitFinder, require


@UNITS.register_module()
class BottleneckChannels(UnitFinder):
    """Inner channels of ``BasicBlock`` and ``Bottleneck`` (torchvision, mmdet, mmpretrain, timm).

    Example:
        >>> prune_cfg = dict(units=[dict(type='BottleneckChannels')])
    """


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
    groups = []
    for i, (first, second) in enumerate(pairwise(convs), start=1):
        producer, norm, reader = layers_of(block, name, first, norm_name(block, i), second)
        groups.append(hidden_channels(producer, [norm], [reader], name))
    return groups


def norm_name(block: nn.Module, number: int) -> str:
    """What a block calls the norm behind a convolution."""
    own = str(getattr(block, f'norm{number}_name', ''))
    for found in (own, f'bn{number}', f'norm{number}'):
        if found in block._modules:
            return found
    raise NotPrunable(f'no norm behind conv{number}')
