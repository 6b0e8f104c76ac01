"""Channels in the towers of mmdet's dense heads: `StackedChannels` in two dimensions."""

from torch import nn

from ..unit_group import UnitGroup
from .conv_chains import layers_of, named, stack
from .conv_stacks import StackedChannels
from .finder import defined_by, join, require

#: What reads the towers for classes and for boxes, by the class that defines the forward pass.
READERS: dict[str | None, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'RetinaHead': (('retina_cls',), ('retina_reg',)),
    'FSAFHead': (('retina_cls',), ('retina_reg',)),
    'ATSSHead': (('atss_cls',), ('atss_reg', 'atss_centerness')),
    'DDODHead': (('atss_cls',), ('atss_reg', 'atss_iou')),
    'GFLHead': (('gfl_cls',), ('gfl_reg',)),
    'AnchorFreeHead': (('conv_cls',), ('conv_reg',)),
    'AutoAssignHead': (('conv_cls',), ('conv_reg', 'conv_centerness')),
    'FCOSHead': (('conv_cls',), ('conv_reg', 'conv_centerness')),
}
#: Where a head says how its levels go through ``forward_single``.
FORWARD = {*READERS, 'AnchorHead'}


@StackedChannels.layout('RPNHead')
def rpn_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's region proposal network."""
    require(defined_by(module, 'forward_single') == 'RPNHead', 'a forward pass of its own')
    path = join(name, 'rpn_conv')
    several = type(module.rpn_conv).__name__ == 'Sequential'
    layers = named(path, module.rpn_conv) if several else [(path, module.rpn_conv)]
    return stack(layers, layers_of(module, name, 'rpn_cls', 'rpn_reg'), name)


@StackedChannels.layout('RetinaHead', 'ATSSHead', 'DDODHead', 'GFLHead', 'AnchorFreeHead')
def dense_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """A tower for classes and one for boxes, the same for all levels."""
    kind = defined_by(module, 'forward_single')
    plain = kind in READERS and defined_by(module, 'forward') in FORWARD
    require(plain and hasattr(module, 'cls_convs'), 'a forward pass of its own')
    classes, boxes = READERS[kind]
    if kind == 'FCOSHead' and not module.centerness_on_reg:
        classes, boxes = (*classes, 'conv_centerness'), ('conv_reg',)
    groups = []
    for tower, readers in (('cls_convs', classes), ('reg_convs', boxes)):
        layers = named(join(name, tower), getattr(module, tower))
        groups += stack(layers, layers_of(module, name, *readers), name)
    return groups


@StackedChannels.layout('YOLOXHead')
def yolox_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's YOLOX: two towers for each level."""
    require(defined_by(module, 'forward_single') == 'YOLOXHead', 'a forward pass of its own')
    groups = []
    for i in range(len(module.multi_level_cls_convs)):
        for tower, outputs in (('cls', ('cls',)), ('reg', ('reg', 'obj'))):
            layers = layers_of(module, name, f'multi_level_{tower}_convs.{i}')
            readers = layers_of(module, name, *(f'multi_level_conv_{n}.{i}' for n in outputs))
            groups += stack(layers, readers, name)
    return groups


@StackedChannels.layout('YOLOV3Head')
def yolov3_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's YOLOv3: a convolution before each level's prediction."""
    groups = []
    for i in range(module.num_levels):
        readers = layers_of(module, name, f'convs_pred.{i}')
        groups += stack(layers_of(module, name, f'convs_bridge.{i}'), readers, name)
    return groups
