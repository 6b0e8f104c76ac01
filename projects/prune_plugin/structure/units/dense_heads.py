"""Channels in the towers of mmdet's dense heads, as `StackedChannels`."""

from torch import nn

from ..unit_group import UnitGroup
from .conv_chains import named_layers, select_layers, stack_groups
from .conv_stacks import StackedChannels
from .finder import defined_by, join, require

#: Layers that take the class and the box tower as input, by the class that defines ``forward_single``.
CONSUMERS: dict[str | None, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'RetinaHead': (('retina_cls',), ('retina_reg',)),
    'FSAFHead': (('retina_cls',), ('retina_reg',)),
    'ATSSHead': (('atss_cls',), ('atss_reg', 'atss_centerness')),
    'DDODHead': (('atss_cls',), ('atss_reg', 'atss_iou')),
    'GFLHead': (('gfl_cls',), ('gfl_reg',)),
    'AnchorFreeHead': (('conv_cls',), ('conv_reg',)),
    'AutoAssignHead': (('conv_cls',), ('conv_reg', 'conv_centerness')),
    'FCOSHead': (('conv_cls',), ('conv_reg', 'conv_centerness')),
}
#: Classes whose ``forward`` calls ``forward_single`` for every level.
FORWARD_CLASSES = {*CONSUMERS, 'AnchorHead'}


@StackedChannels.layout('RPNHead')
def rpn_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's region proposal network: one or more shared convolutions, two outputs."""
    require(defined_by(module, 'forward_single') == 'RPNHead', 'a forward pass of its own')
    path = join(name, 'rpn_conv')
    is_sequence = type(module.rpn_conv).__name__ == 'Sequential'
    layers = named_layers(path, module.rpn_conv) if is_sequence else [(path, module.rpn_conv)]
    return stack_groups(layers, select_layers(module, name, 'rpn_cls', 'rpn_reg'), name)


@StackedChannels.layout('RetinaHead', 'ATSSHead', 'DDODHead', 'GFLHead', 'AnchorFreeHead')
def dense_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """A tower for classes and one for boxes, shared by all levels."""
    kind = defined_by(module, 'forward_single')
    plain = kind in CONSUMERS and defined_by(module, 'forward') in FORWARD_CLASSES
    require(plain and hasattr(module, 'cls_convs'), 'a forward pass of its own')
    classes, boxes = CONSUMERS[kind]
    if kind == 'FCOSHead' and not module.centerness_on_reg:
        classes, boxes = (*classes, 'conv_centerness'), ('conv_reg',)
    groups = []
    for tower, consumers in (('cls_convs', classes), ('reg_convs', boxes)):
        layers = named_layers(join(name, tower), getattr(module, tower))
        groups += stack_groups(layers, select_layers(module, name, *consumers), name)
    return groups


@StackedChannels.layout('YOLOXHead')
def yolox_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's YOLOX: two towers per level."""
    require(defined_by(module, 'forward_single') == 'YOLOXHead', 'a forward pass of its own')
    groups = []
    for i in range(len(module.multi_level_cls_convs)):
        for tower, outputs in (('cls', ('cls',)), ('reg', ('reg', 'obj'))):
            layers = select_layers(module, name, f'multi_level_{tower}_convs.{i}')
            consumers = select_layers(module, name, *(f'multi_level_conv_{n}.{i}' for n in outputs))
            groups += stack_groups(layers, consumers, name)
    return groups


@StackedChannels.layout('YOLOV3Head')
def yolov3_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's YOLOv3: one convolution before the prediction of each level."""
    groups = []
    for i in range(module.num_levels):
        consumers = select_layers(module, name, f'convs_pred.{i}')
        groups += stack_groups(select_layers(module, name, f'convs_bridge.{i}'), consumers, name)
    return groups
