"""Hidden channels of stacks of convolutions: plain backbones, and the towers of 3D heads."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import UnitGroup
from .conv_chains import conv_modules, flatten_layers, named_layers, stack_groups
from .finder import UnitFinder, defined_by, join, require


@UNITS.register_module()
class StackedChannels(UnitFinder):
    """Channels between consecutive convolutions (mmdet, mmdet3d).

    Between the convolutions there may be batch norms, group norms, activations that map zero to zero,
    pooling, dropout and depthwise convolutions. Under a group norm whole groups are removed, so that the
    normalisation of the others doesn't change. The output channels of the last convolution of a stack are
    removed only if all layers that take them as input are known.

    Example:
        >>> prune_cfg = dict(units=[dict(type='StackedChannels')])
    """


@StackedChannels.layout('SSDVGG')
def ssd_vgg(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's VGG for SSD. Channels of its output feature maps are kept."""
    path, start, groups = join(name, 'features'), 0, []
    layers = named_layers(path, module.features)
    for end in (*sorted(module.out_feature_indices), len(layers) - 1):
        groups += stack_groups(layers[start : end + 1], [], name)
        start = end + 1
    return groups


@StackedChannels.layout('InvertedResidual')
def inverted_residual(name: str, block: nn.Module) -> list[UnitGroup]:
    """mmdet's MobileNet block: expansion, depthwise convolution, linear projection."""
    names = [n for n in ('expand_conv', 'depthwise_conv') if hasattr(block, n)]
    layers = conv_modules(block, name, *names, 'linear_conv')
    require(not block.with_se, 'squeeze-and-excitation weights its channels')
    return stack_groups(layers, [], name)


@StackedChannels.layout('SECOND')
def second(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet3d's backbone of PointPillars and CenterPoint. Output channels of the stages are kept."""
    groups = []
    for i, block in enumerate(module.blocks):
        path = join(name, f'blocks.{i}')
        groups += stack_groups(named_layers(path, block), [], path)
    return groups


@StackedChannels.layout('SeparateHead')
def separate_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """One task of CenterPoint's head: a stack of convolutions per predicted quantity."""
    groups = []
    for head in module.heads:
        path = join(name, head)
        groups += stack_groups(named_layers(path, getattr(module, head)), [], path)
    return groups


@StackedChannels.layout('CenterHead')
def center_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """The shared convolution of CenterPoint's head, whose output all tasks take as input."""
    consumers = []
    for i, task in enumerate(module.task_heads):
        path = join(name, f'task_heads.{i}')
        require(type(task).__name__ == 'SeparateHead', f'{path} is a {type(task).__name__}')
        for head in task.heads:
            consumers.append(flatten_layers(named_layers(join(path, head), getattr(task, head)))[0])
    return stack_groups([(join(name, 'shared_conv'), module.shared_conv)], consumers, name)


@StackedChannels.layout('FCOSMono3DHead')
def mono3d_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet3d's FCOS3D and PGD: two towers, and a short stack before each prediction.

    The output channels of the towers, which many stacks take as input, are kept.
    """
    known = ('FCOSMono3DHead', 'PGDHead')
    require(defined_by(module, 'forward_single') in known, 'a forward pass of its own')
    groups = []
    for tower in ('cls_convs', 'reg_convs'):
        groups += stack_groups(named_layers(join(name, tower), getattr(module, tower)), [], name)
    for child, layers_before in module.named_children():
        if not child.endswith(('_prev', '_prevs')):
            continue
        label = child.rpartition('_')[0]
        pairs = [(child, label)]
        if child.endswith('s'):
            pairs = [(f'{child}.{i}', f'{label}s.{i}') for i, _ in layers_before.named_children()]
        for path, output in pairs:
            layers = named_layers(join(name, path), module.get_submodule(path))
            consumers = [(join(name, output), module.get_submodule(output))]
            groups += stack_groups(layers, consumers, name)
    return groups
