"""Hidden neurons of MLPs that are an ``nn.Sequential``, such as the branches of a detection head."""

from collections.abc import Sequence

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Cut, UnitGroup
from .attention import linear_cuts
from .convolutions import norm_cuts
from .finder import UnitFinder, defined_by, join, require

#: Layers that process every feature separately and map zero to zero.
FEATUREWISE = (
    nn.Identity,
    nn.Dropout,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Mish,
    nn.Tanh,
)
#: The same by class name: mmcv's and timm's.
FEATUREWISE_NAMES = ('Swish', 'HSwish')


def is_featurewise(module: nn.Module) -> bool:
    """Whether a module processes every feature separately and maps zero to zero."""
    return isinstance(module, FEATUREWISE) or type(module).__name__ in FEATUREWISE_NAMES


@UNITS.register_module()
class BranchNeurons(UnitFinder):
    """Hidden neurons between the linear layers of an ``nn.Sequential``.

    Examples are the branches for classes, boxes and trajectories. Between two linear layers there may be
    norms, dropout, and activations that map zero to zero. Features removed before a layer norm count as
    zeros in its mean and variance (see ``SlimLayerNorm``).

    Example:
        >>> prune_cfg = dict(units=[dict(type='BranchNeurons')])
    """


def norm_parts(
    name: str, norm: nn.Module, width: int
) -> tuple[list[Cut], list[tuple[str, str]]] | None:
    """Cuts and converters of a norm over ``width`` features; None if it isn't supported."""
    if getattr(norm, 'weight', None) is None:
        return None
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        # After a linear layer on (batch, length, width), it normalises over the length dimension.
        return (norm_cuts(name, norm), []) if norm.num_features == width else None
    if type(norm).__name__ == 'SlimLayerNorm' or (
        isinstance(norm, nn.LayerNorm) and norm.normalized_shape == (width,)
    ):
        cuts = [Cut(f'{name}.{p}', 0) for p in ('weight', 'bias') if getattr(norm, p) is not None]
        return cuts, [(name, 'SlimLayerNorm')]
    return None


def hidden_features(
    name: str,
    producer: nn.Linear,
    between: list[tuple[str, nn.Module]],
    consumers: Sequence[tuple[str, nn.Linear]],
    owner: str,
    sections: tuple[int, ...] = (0,),
) -> UnitGroup | None:
    """The group of features between linear layers; None if a layer in between isn't supported.

    Args:
        name: Name of the producer, and of the group.
        producer: The layer that computes the features.
        between: Names and modules of the layers between producer and consumers.
        consumers: Names and modules of all layers that take the features as input.
        owner: The module whose forward pass uses the features.
        sections: Offsets of the features in a consumer's columns.
    """
    cuts: list[Cut] = []
    converts: list[tuple[str, str]] = []
    for path, module in between:
        if is_featurewise(module):
            continue
        norm = norm_parts(path, module, producer.out_features)
        if norm is None:
            return None
        cuts += norm[0]
        converts += norm[1]
    return feature_group(name, producer, consumers, owner, sections, cuts, converts)


def feature_group(
    name: str,
    producer: nn.Linear,
    consumers: Sequence[tuple[str, nn.Linear]],
    owner: str,
    sections: tuple[int, ...] = (0,),
    extra_cuts: Sequence[Cut] = (),
    converts: Sequence[tuple[str, str]] = (),
) -> UnitGroup:
    """:func:`hidden_features`, given the cuts and converters of the norms in between."""
    cuts = [*linear_cuts(name, producer, 'in', 1), *extra_cuts]
    for path, consumer in consumers:
        cuts += linear_cuts(path, consumer, 'out', 1, sections)
    size = producer.out_features
    return UnitGroup(name, 'branch', size, tuple(cuts), owner, (), tuple(converts), least=1)


@BranchNeurons.layout('Sequential')
def sequential(name: str, module: nn.Module) -> list[UnitGroup]:
    """The hidden features of a sequence of linear layers; none if a layer with weights occurs twice."""
    children = module._modules.items()  # unlike named_children, with repeated modules
    weighted = [layer for _, layer in children if next(layer.parameters(), None) is not None]
    # A subclass may compute something else; it may have its own layout.
    plain = type(module).__name__ == 'Sequential'
    if not plain or type(module).forward is not nn.Sequential.forward:
        return []
    if len(set(weighted)) < len(weighted):
        return []
    groups: list[UnitGroup | None] = []
    layers = [(join(name, child), layer) for child, layer in children]
    linears = [i for i, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear)]
    for first, second in zip(linears, linears[1:], strict=False):
        path, producer = layers[first]
        groups.append(
            hidden_features(path, producer, layers[first + 1 : second], [layers[second]], name)
        )
    return [group for group in groups if group is not None]


@BranchNeurons.layout('ConvFCBBoxHead')
def box_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's box heads: shared linear layers, then a branch for classes and one for boxes."""
    require(defined_by(module, 'forward') == 'ConvFCBBoxHead', 'a forward pass of its own')
    require(isinstance(module.relu, nn.ReLU), 'its activation is not a ReLU')
    shared, branches, consumers = named_linears(name, module, 'shared_fcs'), [], []
    for part in ('cls', 'reg'):
        branch = named_linears(name, module, f'{part}_fcs')
        if getattr(module, f'with_{part}'):
            branch.append((join(name, f'fc_{part}'), getattr(module, f'fc_{part}')))
        branches.append(branch)
        consumers += branch[:1]
    linear = all(isinstance(layer, nn.Linear) for branch in branches for _, layer in branch)
    require(linear, 'an output is not a linear layer')
    groups = []
    for layers, last_consumers in ((shared, consumers), *((branch, []) for branch in branches)):
        consumers_by_layer = [*([layer] for layer in layers[1:]), last_consumers]
        for (path, producer), following in zip(layers, consumers_by_layer, strict=False):
            if following:
                groups.append(feature_group(path, producer, following, name))
    return groups


@BranchNeurons.layout('DIIHead')
def interactive_head(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmdet's heads of Sparse R-CNN: linear layers with norms for classes, and for boxes."""
    require(defined_by(module, 'forward') == 'DIIHead', 'a forward pass of its own')
    groups = []
    for part in ('cls', 'reg'):
        layers = named_linears(name, module, f'{part}_fcs')
        layers.append((join(name, f'fc_{part}'), getattr(module, f'fc_{part}')))
        linears = [i for i, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear)]
        for first, second in zip(linears, linears[1:], strict=False):
            between = layers[first + 1 : second]
            groups.append(hidden_features(*layers[first], between, [layers[second]], name))
    return [group for group in groups if group is not None]


def named_linears(name: str, module: nn.Module, child: str) -> list[tuple[str, nn.Module]]:
    """The layers of the ``ModuleList`` ``child``, each with its name in the model."""
    layers = getattr(module, child).named_children()
    return [(join(name, f'{child}.{number}'), layer) for number, layer in layers]
