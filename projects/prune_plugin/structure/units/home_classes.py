"""The classes for which the layouts were written, by package: others may only be called the same."""

from torch import nn

from .finder import UnitFinder

TIMM_ATTENTION = ('timm.layers.attention', 'timm.models.vision_transformer')
RESNETS = ('torchvision.models.resnet', 'mmdet.models.backbones.resnet', 'timm.models.resnet')
TRANSFORMERS = ('transformers.models.',)
OPENMMLAB = ('mmcv.', 'mmdet.', 'mmdet3d.')
TORCH = ('torch.nn.modules.',)
HOMES: dict[str, tuple[str, ...]] = {
    'Attention': TIMM_ATTENTION,
    'Mlp': ('timm.layers.mlp',),
    'GluMlp': ('timm.layers.mlp',),
    'SwiGLU': ('timm.layers.mlp',),
    'Block': ('timm.models.vision_transformer',),
    'BasicBlock': RESNETS,
    'Bottleneck': RESNETS,
    'MultiheadAttention': TORCH,
    'TransformerEncoderLayer': TORCH,
    'TransformerDecoderLayer': TORCH,
    'FFN': ('mmcv.cnn.bricks.transformer',),
    'MultiScaleDeformableAttention': ('mmcv.ops.multi_scale_deform_attn',),
    'SlimMultiheadAttention': ('projects.prune_plugin.', 'mm_prune.'),
}


def is_home_class(module: nn.Module) -> bool:
    """Whether a layout was written for this very class, so that no trial is needed.

    Classes of Hugging Face's transformers and of OpenMMLab have names of their own; those of a model family
    stand in the package that brings the layout.
    """
    kind = plain_class(type(module))
    where = f'{kind.__module__}.'
    homes = HOMES.get(kind.__name__)
    if homes is not None:
        return where.startswith(homes)
    if kind is nn.Sequential:
        return all(type(m).__module__.startswith(TORCH[0][:-1]) for m in module.modules())
    layouts = [c.layouts[kind.__name__] for c in finders() if kind.__name__ in c.layouts]
    if not layouts:
        return False
    own = {layout.__module__.partition('.')[0] for layout in layouts}
    return where.startswith((*TRANSFORMERS, *OPENMMLAB)) or where.partition('.')[0] in own


def plain_class(kind: type) -> type:
    """The class whose behaviour a class has: of one that only constructs itself otherwise, its base's."""
    named = {name for finder in finders() for name in finder.layouts}
    for base in kind.__mro__:
        if base.__name__ in named:
            return base
        own = {
            name
            for name, value in vars(base).items()
            if callable(value) or hasattr(value, '__func__')
        }
        if own - {'__init__'}:
            return kind
    return kind


def finders() -> list[type[UnitFinder]]:
    """All classes of finders that were imported."""
    found, pending = [], [UnitFinder]
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending += kind.__subclasses__()
    return found
