"""Inner channels of feature pyramids: between the lateral and the output convolutions."""

from torch import nn

from ..registry import UNITS
from .base import Cut, UnitGroup
from .conv import norm_cuts
from .finder import UnitFinder, join, require


@UNITS.register_module()
class FPNChannels(UnitFinder):
    """Inner channels of mmdet's ``FPN``, which all levels share: they are added up from the top down.

    Example:
        >>> prune_cfg = dict(units=[dict(type='FPNChannels')])
    """


def written_cuts(name: str, block: nn.Module) -> list[Cut]:
    """Cuts of a ``ConvModule``'s output channels."""
    require(tuple(block.order) == ('conv', 'norm', 'act'), f'{name} has another order of layers')
    require(
        not block.with_activation or isinstance(block.activate, nn.ReLU | nn.LeakyReLU),
        f'{name} has an activation that may turn zero into something else',
    )
    check_plain(name, block)
    cuts = [Cut(f'{name}.conv.weight', 0)]
    if block.conv.bias is not None:
        cuts.append(Cut(f'{name}.conv.bias', 0))
    if block.with_norm:
        norm = block.norm
        require(isinstance(norm, nn.modules.batchnorm._BatchNorm), f'{name} has no batch norm')
        cuts += norm_cuts(f'{name}.{block.norm_name}', norm)
    return cuts


def check_plain(name: str, block: nn.Module) -> None:
    """Refuse convolutions that are not plain ones."""
    plain = type(block.conv).__name__ == 'Conv2d' and block.conv.groups == 1
    require(plain, f'{name} is no plain convolution')


@FPNChannels.layout('FPN')
def mmdet_fpn(name: str, module: nn.Module) -> list[UnitGroup]:
    """Lateral convolutions write the channels, the output convolutions of their levels read them."""
    require(hasattr(module, 'lateral_convs'), 'no lateral convolutions')
    levels = len(module.lateral_convs)
    cuts = []
    for i, block in enumerate(module.lateral_convs):
        cuts += written_cuts(join(name, f'lateral_convs.{i}'), block)
    readers = list(range(levels))
    if module.add_extra_convs == 'on_lateral' and len(module.fpn_convs) > levels:
        readers.append(levels)
    for i in readers:
        path = join(name, f'fpn_convs.{i}')
        check_plain(path, module.fpn_convs[i])
        cuts.append(Cut(f'{path}.conv.weight', 1, side='out'))
    size = module.lateral_convs[0].conv.out_channels
    label = join(name, 'lateral_convs')
    return [UnitGroup(label, 'channel', size, tuple(cuts), name, least=1)]
