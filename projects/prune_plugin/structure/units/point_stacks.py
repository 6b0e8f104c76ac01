"""Hidden channels of the point-wise layers in networks of point clouds (mmdet3d)."""

from torch import nn

from ..unit_group import UnitGroup
from .conv_chains import named_layers, stack_groups
from .conv_stacks import StackedChannels
from .finder import defined_by, join, require


@StackedChannels.layout('PointSAModuleMSG', 'PointFPModule', 'DGCNNGFModule', 'DGCNNFAModule')
def point_layers(name: str, module: nn.Module) -> list[UnitGroup]:
    """Set abstraction, feature propagation, edge convolutions: each stack's output channels are kept."""
    stacks = {'mlps': module.mlps}
    if isinstance(module.mlps, nn.ModuleList):
        stacks = {f'mlps.{i}': stack for i, stack in enumerate(module.mlps)}
    groups = []
    for child, stack in stacks.items():
        plain = isinstance(stack, nn.Sequential) and all(
            type(layer).__name__ == 'ConvModule' for layer in stack
        )
        require(plain, f'{join(name, child)} is no sequence of ConvModule')
        groups += stack_groups(named_layers(join(name, child), stack), [], name)
    return groups


@StackedChannels.layout('VoteModule')
def vote_module(name: str, module: nn.Module) -> list[UnitGroup]:
    """VoteNet's votes: a stack of convolutions before the last one."""
    output = [(join(name, 'conv_out'), module.conv_out)]
    return stack_groups(named_layers(join(name, 'vote_conv'), module.vote_conv), output, name)


@StackedChannels.layout('BaseConvBboxHead')
def point_box_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """VoteNet's predictions: shared convolutions, then those of classes and of boxes."""
    outputs, groups, first = [], [], []
    for branch in ('cls', 'reg'):
        stack = getattr(module, f'{branch}_convs', None)
        last = getattr(module, f'conv_{branch}', None)
        ends = [] if last is None else [(join(name, f'conv_{branch}'), last)]
        if isinstance(stack, nn.Module) and len(list(stack.children())):
            layers = named_layers(join(name, f'{branch}_convs'), stack)
            groups += stack_groups(layers, ends, name)
            first.append((f'{layers[0][0]}.conv', layers[0][1].conv))
        else:
            outputs += ends
    shared = getattr(module, 'shared_convs', None)
    if isinstance(shared, nn.Module) and len(list(shared.children())):
        layers = named_layers(join(name, 'shared_convs'), shared)
        groups += stack_groups(layers, [*first, *outputs], name)
    return groups


@StackedChannels.layout('DGCNNHead', 'PointNet2Head')
def point_segmentation_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """The last layers before the classes of points; DGCNN's, with the propagation before them."""
    known = ('DGCNNHead', 'PointNet2Head')
    require(defined_by(module, 'forward') in known, 'a forward pass of its own')
    layers = []
    if isinstance(getattr(module, 'FP_module', None), nn.Module):
        layers += named_layers(join(name, 'FP_module.mlps'), module.FP_module.mlps)
    layers.append((join(name, 'pre_seg_conv'), module.pre_seg_conv))
    return stack_groups(layers, [(join(name, 'conv_seg'), module.conv_seg)], name)
