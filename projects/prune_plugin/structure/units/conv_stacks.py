"""Hidden channels of stacks of convolutions: plain backbones, and the towers of 3D heads."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import UnitGroup
from .conv_chains import conv_modules, named, parts, stack
from .finder import UnitFinder, defined_by, join, require


@UNITS.register_module()
class StackedChannels(UnitFinder):
    """Channels between convolutions that run one after the other (mmdet, mmdet3d).

    Between them batch norms, group norms, activations that leave zero zero, pooling, dropout and
    convolutions of each channel by itself may stand. Under a group norm whole groups go, so that the
    others are normed as before. What the last convolution of a stack writes goes only where all that
    reads it is known.

    Example:
        >>> prune_cfg = dict(units=[dict(type='StackedChannels')])
    """


@StackedChannels.layout('SSDVGG')
def ssd_vgg(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's VGG for SSD; what it puts out is read elsewhere."""
    path, start, groups = join(name, 'features'), 0, []
    layers = named(path, module.features)
    for end in (*sorted(module.out_feature_indices), len(layers) - 1):
        groups += stack(layers[start : end + 1], [], name)
        start = end + 1
    return groups


@StackedChannels.layout('InvertedResidual')
def inverted_residual(name: str, block: nn.Module) -> list[UnitGroup]:
    """mmdet's block of MobileNets: widened, convolved channel by channel, narrowed."""
    names = [n for n in ('expand_conv', 'depthwise_conv') if hasattr(block, n)]
    layers = conv_modules(block, name, *names, 'linear_conv')
    require(not block.with_se, 'channels are weighted by all others')
    return stack(layers, [], name)


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
