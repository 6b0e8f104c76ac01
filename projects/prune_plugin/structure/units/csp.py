"""Channels of Darknet blocks and cross stage partial (CSP) layers: YOLOv3, YOLOX, RTMDet."""

from torch import nn

from ..unit_group import Cut, UnitGroup
from .conv_chains import conv_modules, flatten_layers, single_channel_cuts, stack_groups
from .conv_stacks import StackedChannels
from .convolutions import input_channel_cuts, is_depthwise
from .finder import join, require


@StackedChannels.layout('ResBlock', 'DarknetBottleneck', 'CSPNeXtBlock')
def bottleneck(name: str, block: nn.Module) -> list[UnitGroup]:
    """Residual block conv1 -> conv2; the output channels of conv2 are added to the input and kept."""
    return stack_groups(conv_modules(block, name, 'conv1', 'conv2'), [], name)


@StackedChannels.layout('DetectionBlock')
def detection_block(name: str, block: nn.Module) -> list[UnitGroup]:
    """Block of YOLOv3's neck: five convolutions; the output channels of the last one are kept."""
    return stack_groups(conv_modules(block, name, *(f'conv{i}' for i in range(1, 6))), [], name)


@StackedChannels.layout('CSPLayer')
def csp_layer(name: str, module: nn.Module) -> list[UnitGroup]:
    """The two branches whose channels ``final_conv`` takes as input, concatenated, the main one first.

    Blocks of the main branch with a residual connection share its channels, which are then removed from
    all blocks together. If a block has none, the channels of the main branch are kept.
    """
    conv_modules(module, name, 'main_conv', 'short_conv', 'final_conv')
    width = module.main_conv.conv.out_channels
    groups = [branch_group(name, module, 'short_conv', [], width)]
    blocks = [f'blocks.{i}' for i in range(len(module.blocks))]
    if all(block.add_identity for block in module.blocks):
        groups.insert(0, branch_group(name, module, 'main_conv', blocks, 0))
    return groups


def branch_group(
    name: str, module: nn.Module, first: str, blocks: list[str], offset: int
) -> UnitGroup:
    """The group of channels of one branch of a CSP layer.

    Args:
        name: The CSP layer's name in the model.
        module: The CSP layer.
        first: Path of the first convolution of the branch.
        blocks: Paths of the residual blocks that share its channels.
        offset: Index of the branch's first channel in the input of ``final_conv``.

    Raises:
        NotPrunable: a convolution is of an unsupported kind.
    """
    cuts: list[Cut] = []
    for producer in (first, *(f'{block}.conv2' for block in blocks)):
        cuts += single_channel_cuts(*conv_modules(module, name, producer))
    for block in blocks:
        path, consumer = flatten_layers(conv_modules(module, name, f'{block}.conv1'))[0]
        require(not is_depthwise(consumer), f'{path} is depthwise')
        cuts += input_channel_cuts(path, consumer)
    if module.channel_attention:
        fc = join(name, 'attention.fc')
        cuts += [Cut(f'{fc}.{n}', 0, sections=(offset,)) for n in ('weight', 'bias')]
        cuts.append(Cut(f'{fc}.weight', 1, sections=(offset,), side='out'))
    path, last_conv = flatten_layers(conv_modules(module, name, 'final_conv'))[0]
    require(type(last_conv).__name__ == 'Conv2d', f'{path} is a {type(last_conv).__name__}')
    cuts.append(Cut(f'{path}.weight', 1, sections=(offset,), side='out'))
    label = join(name, f'{first}.conv')
    size = module.get_submodule(f'{first}.conv').out_channels
    return UnitGroup(label, 'channel', size, tuple(cuts), name, least=1)
