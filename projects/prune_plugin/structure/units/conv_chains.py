"""Channels between convolutions that run one after the other."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from ..unit_group import Attr, Cut, UnitGroup
from .convolutions import (
    depthwise_channels,
    input_channels,
    is_convolution,
    is_depthwise,
    norm_cuts,
    output_channels,
)
from .finder import NotPrunable, join, require
from .mlp_branches import is_featurewise

#: A module and its name in the model.
Named = tuple[str, nn.Module]
#: mmcv's convolutions with their norms and activations.
CONV_MODULES = {'ConvModule', 'DepthwiseSeparableConvModule'}
#: Classes whose children run one after the other.
CONTAINERS = {'Sequential', 'DepthwiseSeparableConvModule'}
#: Layers of more than one place that keep channels apart, and give zero for a channel of zeros.
POOLING = (nn.MaxPool2d, nn.AvgPool2d)


def parts(layers: Sequence[Named]) -> list[Named]:
    """Layers in the order they run, with containers and mmcv's ``ConvModule`` taken apart."""
    found: list[Named] = []
    for name, layer in layers:
        kinds = {c.__name__ for c in type(layer).__mro__}
        if kinds & CONTAINERS:
            found += parts(named(name, layer))
            continue
        if 'ConvModule' not in kinds:
            found.append((name, layer))
            continue
        require(
            tuple(layer.order) == ('conv', 'norm', 'act'), f'{name} has another order of layers'
        )
        require(not layer.with_spectral_norm, f'{name} has a spectral norm')
        found.append((join(name, 'conv'), layer.conv))
        if layer.with_norm:
            found.append((join(name, layer.norm_name), layer.norm))
        if layer.with_activation:
            found.append((join(name, 'activate'), layer.activate))
    return found


def layers_of(block: nn.Module, name: str, *children: str) -> list[Named]:
    """Some children of a module with their names in the model."""
    return [(join(name, child), block.get_submodule(child)) for child in children]


def conv_modules(block: nn.Module, name: str, *children: str) -> list[Named]:
    """:func:`layers_of`, all of them mmcv's modules of a convolution with its norm and activation.

    Raises:
        NotPrunable: some are missing or something else; another class may have the same name.
    """
    own = {n: {c.__name__ for c in type(m).__mro__} for n, m in block.named_modules()}
    known = all(own.get(child, set()) & CONV_MODULES for child in children)
    require(known, 'not laid out as in mmdet')
    return layers_of(block, name, *children)


def writing(producer: Named, between: Sequence[Named]) -> tuple[list[Cut], list[Attr], int]:
    """What goes with the channels that a convolution writes, up to where they are read.

    Args:
        producer: The convolution.
        between: What stands behind it, in order.

    Returns:
        Cuts, counts, and how many channels are one unit.

    Raises:
        NotPrunable: something in between mixes channels, or the convolution is of another kind.
    """
    path, conv = producer
    width = 1
    cuts: list[Cut] = []
    attrs: list[Attr] = []
    for name, module in between:
        if isinstance(module, nn.GroupNorm):
            require(module.affine and width == 1, f'{name} is one of two norms, or has no weight')
            width = conv.out_channels // module.num_groups
            attrs.append(Attr(name, 'num_groups'))
            cuts += [Cut(f'{name}.weight', 0, width), Cut(f'{name}.bias', 0, width)]
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            require(module.affine, f'{name} has no weight')
            cuts += norm_cuts(name, module)
        elif is_depthwise(module):
            more, counts = depthwise_channels(name, module)
            cuts, attrs = cuts + more, attrs + counts
        else:
            apart = is_featurewise(module) or isinstance(module, POOLING)
            require(apart, f'{name} is a {type(module).__name__}')
    alike = all(cut.width == width for cut in cuts)
    require(alike, f'{path} has a group norm, and something else that counts channels')
    return output_channels(path, conv, width) + cuts, attrs, width


def written_singly(layer: Named) -> list[Cut]:
    """Cuts of what a layer's last convolution writes, with its norm; a unit is one channel.

    Raises:
        NotPrunable: as :func:`writing`, or under a group norm.
    """
    flat = parts([layer])
    last = max(i for i, (_, module) in enumerate(flat) if is_convolution(module))
    cuts, _, width = writing(flat[last], flat[last + 1 :])
    require(width == 1, f'{layer[0]} has a group norm')
    return cuts


def hidden_channels(
    producer: Named, between: Sequence[Named], readers: Sequence[Named], owner: str
) -> UnitGroup:
    """The channels that ``producer`` writes and nothing but ``readers`` reads.

    Args:
        producer: The convolution that writes them.
        between: What stands between, in order.
        readers: The convolutions that read them.
        owner: The module whose forward pass uses them.

    Raises:
        NotPrunable: as :func:`writing`, or a reader is of another kind.
    """
    path, conv = producer
    cuts, attrs, width = writing(producer, between)
    for name, reader in readers:
        cuts += input_channels(name, reader, width)
    size = conv.out_channels // width
    return UnitGroup(path, 'channel', size, tuple(cuts), owner, tuple(attrs), least=1)


def stack(layers: Sequence[Named], readers: Sequence[Named], owner: str) -> list[UnitGroup]:
    """All channels in a stack of layers that run one after the other.

    Args:
        layers: The layers in order.
        readers: All that reads the last one's output; nothing if that isn't known, or if it is the
            model's output.
        owner: The module whose forward pass uses them.

    Raises:
        NotPrunable: none of them can go.
    """
    flat = parts(layers)
    if len({id(module) for _, module in flat}) < len(flat):
        raise NotPrunable('a layer occurs twice')
    at = [i for i, (_, m) in enumerate(flat) if is_convolution(m) and not is_depthwise(m)]
    groups, reasons = [], []
    for first, second in pairwise([*at, len(flat)]):
        reading = [flat[second]] if second < len(flat) else readers
        if not reading:
            continue
        try:
            groups.append(hidden_channels(flat[first], flat[first + 1 : second], reading, owner))
        except NotPrunable as reason:
            reasons.append(str(reason))
    if reasons and not groups:
        raise NotPrunable(reasons[0])
    return groups


def named(name: str, layers: nn.Module) -> list[Named]:
    """A container's layers with their names."""
    return [(join(name, child), layer) for child, layer in layers.named_children()]
