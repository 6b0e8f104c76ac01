"""Hidden channels of stacks of convolutions: one backbone, and the towers of detection heads."""

from collections.abc import Sequence

from torch import nn

from ..registry import UNITS
from .base import Attr, Cut, UnitGroup
from .branches import FEATUREWISE
from .conv import norm_cuts, reading_channels, written_channels
from .finder import NotPrunable, UnitFinder, defined_by, join, require

#: A module and its name in the model.
Named = tuple[str, nn.Module]


@UNITS.register_module()
class StackedChannels(UnitFinder):
    """Channels between convolutions that run one after the other (mmdet, mmdet3d).

    Between them batch norms, group norms, activations that leave zero zero, and dropout may stand.
    Under a group norm whole groups go, so that the others are normed as before. What the last
    convolution of a stack writes goes only where all that reads it is known.

    Example:
        >>> prune_cfg = dict(units=[dict(type='StackedChannels')])
    """


def parts(layers: Sequence[Named]) -> list[Named]:
    """Layers in the order they run, with mmcv's ``ConvModule`` taken apart."""
    found: list[Named] = []
    for name, layer in layers:
        if not any(c.__name__ == 'ConvModule' for c in type(layer).__mro__):
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


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is a convolution of any kind."""
    return hasattr(module, 'in_channels') and hasattr(module, 'kernel_size')


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
        NotPrunable: something in between mixes channels, or a convolution is of another kind.
    """
    path, conv = producer
    channels, width = conv.out_channels, 1
    cuts: list[Cut] = []
    attrs: list[Attr] = []
    for name, module in between:
        if isinstance(module, nn.GroupNorm):
            require(module.affine and width == 1, f'{name} is one of two norms, or has no weight')
            width = channels // module.num_groups
            attrs.append(Attr(name, 'num_groups'))
            cuts += [Cut(f'{name}.weight', 0, width), Cut(f'{name}.bias', 0, width)]
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            require(module.affine, f'{name} has no weight')
            cuts += norm_cuts(name, module)
        else:
            require(isinstance(module, FEATUREWISE), f'{name} is a {type(module).__name__}')
    require(
        width == 1 or not any(c.name.endswith('running_var') for c in cuts),
        f'{path} has a batch norm and a group norm',
    )
    cuts = written_channels(path, conv, width) + cuts
    for name, reader in readers:
        cuts += reading_channels(name, reader, width)
    size = channels // width
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
    at = [i for i, (_, module) in enumerate(flat) if is_convolution(module)]
    groups, reasons = [], []
    for first, second in zip(at, [*at[1:], len(flat)], strict=True):
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


def named(name: str, layers: nn.ModuleList | nn.Sequential) -> list[Named]:
    """A container's layers with their names."""
    return [(join(name, child), layer) for child, layer in layers.named_children()]


@StackedChannels.layout('SECOND')
def second(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet3d's backbone of PointPillars and CenterPoint; what a stage puts out is read elsewhere."""
    groups = []
    for i, block in enumerate(module.blocks):
        path = join(name, f'blocks.{i}')
        groups += stack(named(path, block), [], path)
    return groups


@StackedChannels.layout('SeparateHead')
def separate_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """A task of CenterPoint's head: one stack per quantity."""
    groups = []
    for head in module.heads:
        path = join(name, head)
        groups += stack(named(path, getattr(module, head)), [], path)
    return groups


@StackedChannels.layout('CenterHead')
def center_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """What all tasks of CenterPoint's head share."""
    readers = []
    for i, task in enumerate(module.task_heads):
        path = join(name, f'task_heads.{i}')
        require(type(task).__name__ == 'SeparateHead', f'{path} is a {type(task).__name__}')
        for head in task.heads:
            readers.append(parts(named(join(path, head), getattr(task, head)))[0])
    return stack([(join(name, 'shared_conv'), module.shared_conv)], readers, name)


@StackedChannels.layout('RPNHead')
def rpn_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's region proposal network."""
    require(defined_by(module, 'forward_single') == 'RPNHead', 'a forward pass of its own')
    path = join(name, 'rpn_conv')
    several = type(module.rpn_conv).__name__ == 'Sequential'
    layers = named(path, module.rpn_conv) if several else [(path, module.rpn_conv)]
    readers = [(join(name, n), getattr(module, n)) for n in ('rpn_cls', 'rpn_reg')]
    return stack(layers, readers, name)


@StackedChannels.layout('RetinaHead')
def retina_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's RetinaNet: a tower for classes and one for boxes."""
    require(defined_by(module, 'forward_single') == 'RetinaHead', 'a forward pass of its own')
    groups = []
    for tower, reader in (('cls_convs', 'retina_cls'), ('reg_convs', 'retina_reg')):
        readers = [(join(name, reader), getattr(module, reader))]
        groups += stack(named(join(name, tower), getattr(module, tower)), readers, name)
    return groups


@StackedChannels.layout('FCOSMono3DHead')
def mono3d_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet3d's FCOS3D and PGD: two towers, and a short stack before each prediction.

    What a tower's last convolution writes is read by many stacks, and stays.
    """
    known = ('FCOSMono3DHead', 'PGDHead')
    require(defined_by(module, 'forward_single') in known, 'a forward pass of its own')
    groups = []
    for tower in ('cls_convs', 'reg_convs'):
        groups += stack(named(join(name, tower), getattr(module, tower)), [], name)
    for child, before in module.named_children():
        if not child.endswith(('_prev', '_prevs')):
            continue
        label = child.rpartition('_')[0]
        pairs = [(child, label)]
        if child.endswith('s'):
            pairs = [(f'{child}.{i}', f'{label}s.{i}') for i, _ in before.named_children()]
        for path, reader in pairs:
            layers = named(join(name, path), module.get_submodule(path))
            readers = [(join(name, reader), module.get_submodule(reader))]
            groups += stack(layers, readers, name)
    return groups
