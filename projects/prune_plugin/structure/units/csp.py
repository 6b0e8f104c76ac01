"""Channels of Darknet and of cross stage partial layers: YOLOv3, YOLOX, RTMDet."""

from torch import nn

from ..unit_group import Cut, UnitGroup
from .conv_chains import conv_modules, parts, stack, written_singly
from .conv_stacks import StackedChannels
from .convolutions import input_channels, is_depthwise
from .finder import join, require


@StackedChannels.layout('ResBlock', 'DarknetBottleneck', 'CSPNeXtBlock')
def bottleneck(name: str, block: nn.Module) -> list[UnitGroup]:
    """conv1 -> conv2; what conv2 writes is added to what the block reads."""
    return stack(conv_modules(block, name, 'conv1', 'conv2'), [], name)


@StackedChannels.layout('DetectionBlock')
def detection_block(name: str, block: nn.Module) -> list[UnitGroup]:
    """Of YOLOv3's neck: five convolutions, of which the last is read elsewhere."""
    return stack(conv_modules(block, name, *(f'conv{i}' for i in range(1, 6))), [], name)


@StackedChannels.layout('CSPLayer')
def csp_layer(name: str, module: nn.Module) -> list[UnitGroup]:
    """The two branches that the last convolution reads side by side, the main one first.

    The blocks of the main branch add to its channels, so those go through all blocks together. Blocks
    that don't add have no channels in common, and keep theirs.
    """
    conv_modules(module, name, 'main_conv', 'short_conv', 'final_conv')
    width = module.main_conv.conv.out_channels
    groups = [branch(name, module, 'short_conv', [], width)]
    blocks = [f'blocks.{i}' for i in range(len(module.blocks))]
    if all(block.add_identity for block in module.blocks):
        groups.insert(0, branch(name, module, 'main_conv', blocks, 0))
    return groups


def branch(name: str, module: nn.Module, first: str, blocks: list[str], offset: int) -> UnitGroup:
    """The channels of a branch.

    Args:
        name: The layer's name in the model.
        module: The layer.
        first: The convolution that the branch begins with.
        blocks: Those that add to its channels.
        offset: Where its channels stand in what the last convolution reads.
    """
    cuts: list[Cut] = []
    for writer in (first, *(f'{block}.conv2' for block in blocks)):
        cuts += written_singly(*conv_modules(module, name, writer))
    for block in blocks:
        path, reader = parts(conv_modules(module, name, f'{block}.conv1'))[0]
        require(not is_depthwise(reader), f'{path} keeps channels apart')
        cuts += input_channels(path, reader)
    if module.channel_attention:
        fc = join(name, 'attention.fc')
        cuts += [Cut(f'{fc}.{n}', 0, sections=(offset,)) for n in ('weight', 'bias')]
        cuts.append(Cut(f'{fc}.weight', 1, sections=(offset,), side='out'))
    path, last_conv = parts(conv_modules(module, name, 'final_conv'))[0]
    require(type(last_conv).__name__ == 'Conv2d', f'{path} is a {type(last_conv).__name__}')
    cuts.append(Cut(f'{path}.weight', 1, sections=(offset,), side='out'))
    label = join(name, f'{first}.conv')
    size = module.get_submodule(f'{first}.conv').out_channels
    return UnitGroup(label, 'channel', size, tuple(cuts), name, least=1)
