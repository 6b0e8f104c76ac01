"""Inner channels of feature pyramids, between the lateral and the output convolutions."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Cut, UnitGroup
from .conv_chains import single_channel_cuts
from .convolutions import input_channel_cuts
from .finder import UnitFinder, join, require


@UNITS.register_module()
class FPNChannels(UnitFinder):
    """Inner channels of mmdet's ``FPN``, shared by all levels, as these are added top-down.

    Example:
        >>> prune_cfg = dict(units=[dict(type='FPNChannels')])
    """


@FPNChannels.layout('FPN')
def mmdet_fpn(name: str, module: nn.Module) -> list[UnitGroup]:
    """Lateral convolutions compute the channels; the output convolutions take them as input."""
    require(hasattr(module, 'lateral_convs'), 'no lateral convolutions')
    levels = len(module.lateral_convs)
    cuts: list[Cut] = []
    for i, block in enumerate(module.lateral_convs):
        cuts += single_channel_cuts((join(name, f'lateral_convs.{i}'), block))
    outputs = list(range(levels))
    if module.add_extra_convs == 'on_lateral' and len(module.fpn_convs) > levels:
        outputs.append(levels)
    for i in outputs:
        cuts += input_channel_cuts(join(name, f'fpn_convs.{i}.conv'), module.fpn_convs[i].conv)
    size = module.lateral_convs[0].conv.out_channels
    label = join(name, 'lateral_convs')
    return [UnitGroup(label, 'channel', size, tuple(cuts), name, least=1)]
