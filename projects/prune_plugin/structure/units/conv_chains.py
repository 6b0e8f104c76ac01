"""Unit groups for the channels between consecutive convolutions."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from ..unit_group import Attr, Cut, UnitGroup
from .convolutions import (
    depthwise_cuts,
    input_channel_cuts,
    is_convolution,
    is_depthwise,
    norm_cuts,
    output_channel_cuts,
)
from .finder import NotPrunable, join, require
from .mlp_branches import is_featurewise

#: A module and its name in the model.
Named = tuple[str, nn.Module]
#: mmcv's modules that combine a convolution with a norm and an activation.
CONV_MODULES = {'ConvModule', 'DepthwiseSeparableConvModule'}
#: Classes that run their children in sequence.
CONTAINERS = {'Sequential', 'DepthwiseSeparableConvModule'}
#: Spatial layers that process every channel separately and map a channel of zeros to zeros.
POOLING = (nn.MaxPool2d, nn.AvgPool2d)


def flatten_layers(layers: Sequence[Named]) -> list[Named]:
    """Leaf layers in execution order: containers and mmcv's ``ConvModule`` are replaced by their layers.

    Raises:
        NotPrunable: a ``ConvModule`` has another order of layers, or a spectral norm.
    """
    flat: list[Named] = []
    for name, layer in layers:
        kinds = {c.__name__ for c in type(layer).__mro__}
        if kinds & CONTAINERS:
            flat += flatten_layers(named_layers(name, layer))
            continue
        if 'ConvModule' not in kinds:
            flat.append((name, layer))
            continue
        require(
            tuple(layer.order) == ('conv', 'norm', 'act'), f'{name} has another order of layers'
        )
        require(not layer.with_spectral_norm, f'{name} has a spectral norm')
        flat.append((join(name, 'conv'), layer.conv))
        if layer.with_norm:
            flat.append((join(name, layer.norm_name), layer.norm))
        if layer.with_activation:
            flat.append((join(name, 'activate'), layer.activate))
    return flat


def select_layers(block: nn.Module, name: str, *children: str) -> list[Named]:
    """The given submodules of ``block``, each with its name in the model."""
    return [(join(name, child), block.get_submodule(child)) for child in children]


def conv_modules(block: nn.Module, name: str, *children: str) -> list[Named]:
    """:func:`select_layers`, all of which must be mmcv's ``ConvModule`` or a depthwise separable one.

    Raises:
        NotPrunable: one is missing or of another class; ``block`` may be a class of another package with
            the same name.
    """
    classes = {n: {c.__name__ for c in type(m).__mro__} for n, m in block.named_modules()}
    known = all(classes.get(child, set()) & CONV_MODULES for child in children)
    require(known, 'not laid out as in mmdet')
    return select_layers(block, name, *children)


def producer_cuts(producer: Named, between: Sequence[Named]) -> tuple[list[Cut], list[Attr], int]:
    """Cuts for the output channels of a convolution and for the layers up to the next convolution.

    Args:
        producer: The convolution that computes the channels.
        between: The layers after it, in execution order.

    Returns:
        Cuts, attributes that depend on the number of units, and channels per unit (more than 1 under a
        group norm).

    Raises:
        NotPrunable: a layer in between mixes channels, or the convolution is of an unsupported kind.
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
            conv_cuts, conv_attrs = depthwise_cuts(name, module)
            cuts, attrs = cuts + conv_cuts, attrs + conv_attrs
        else:
            channelwise = is_featurewise(module) or isinstance(module, POOLING)
            require(channelwise, f'{name} is a {type(module).__name__}')
    same_width = all(cut.width == width for cut in cuts)
    require(same_width, f'{path} has a group norm, and another layer with parameters per channel')
    return output_channel_cuts(path, conv, width) + cuts, attrs, width


def single_channel_cuts(layer: Named) -> list[Cut]:
    """Cuts for the output channels of a layer's last convolution and its norm; one channel per unit.

    Raises:
        NotPrunable: see :func:`producer_cuts`; or there is a group norm.
    """
    flat = flatten_layers([layer])
    last = max(i for i, (_, module) in enumerate(flat) if is_convolution(module))
    cuts, _, width = producer_cuts(flat[last], flat[last + 1 :])
    require(width == 1, f'{layer[0]} has a group norm')
    return cuts


def hidden_channels(
    producer: Named, between: Sequence[Named], consumers: Sequence[Named], owner: str
) -> UnitGroup:
    """The group of channels that ``producer`` outputs and that only ``consumers`` take as input.

    Args:
        producer: The convolution that computes the channels.
        between: The layers between producer and consumers, in execution order.
        consumers: All convolutions that take the channels as input.
        owner: The module whose forward pass uses the channels.

    Raises:
        NotPrunable: see :func:`producer_cuts`; or a consumer is of an unsupported kind.
    """
    path, conv = producer
    cuts, attrs, width = producer_cuts(producer, between)
    for name, consumer in consumers:
        cuts += input_channel_cuts(name, consumer, width)
    size = conv.out_channels // width
    return UnitGroup(path, 'channel', size, tuple(cuts), owner, tuple(attrs), least=1)


def stack_groups(
    layers: Sequence[Named], consumers: Sequence[Named], owner: str
) -> list[UnitGroup]:
    """The groups of channels in a stack of layers that run in sequence, one per convolution.

    Args:
        layers: The layers in execution order.
        consumers: All convolutions that take the stack's output as input. If empty, the output channels
            of the last convolution are kept: their consumers are unknown, or it is the model's output.
        owner: The module whose forward pass uses the channels.

    Raises:
        NotPrunable: none of the channels can be removed; the reason is that of the first group.
    """
    flat = flatten_layers(layers)
    if len({id(module) for _, module in flat}) < len(flat):
        raise NotPrunable('a layer occurs twice')
    convs = [i for i, (_, m) in enumerate(flat) if is_convolution(m) and not is_depthwise(m)]
    groups, reasons = [], []
    for first, second in pairwise([*convs, len(flat)]):
        following = [flat[second]] if second < len(flat) else consumers
        if not following:
            continue
        try:
            groups.append(hidden_channels(flat[first], flat[first + 1 : second], following, owner))
        except NotPrunable as reason:
            reasons.append(str(reason))
    if reasons and not groups:
        raise NotPrunable(reasons[0])
    return groups


def named_layers(name: str, layers: nn.Module) -> list[Named]:
    """The layers of a container, each with its name in the model."""
    return [(join(name, child), layer) for child, layer in layers.named_children()]
