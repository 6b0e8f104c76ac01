"""Hidden neurons of small networks that are one ``nn.Sequential``: a detection head's branches."""

from collections.abc import Sequence

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Cut, UnitGroup
from .attention import linear_cuts
from .convolutions import norm_cuts
from .finder import UnitFinder, defined_by, join, require

#: Layers that treat each feature by itself and leave a zero a zero.
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
#: The same by name: mmcv's and timm's own.
FEATUREWISE_NAMES = ('Swish', 'HSwish')


def is_featurewise(module: nn.Module) -> bool:
    """Whether a module treats each feature by itself and leaves a zero a zero."""
    return isinstance(module, FEATUREWISE) or type(module).__name__ in FEATUREWISE_NAMES


@UNITS.register_module()
class BranchNeurons(UnitFinder):
    """Hidden neurons between the linear layers of an ``nn.Sequential``.

    Branches for classes, boxes and trajectories are such; between two linear layers only norms,
    activations that leave zero zero, and dropout may stand. Features removed before a layer norm
    go on counting as zeros in its mean and variance (see ``SlimLayerNorm``).

    Example:
        >>> prune_cfg = dict(units=[dict(type='BranchNeurons')])
    """


def norm_parts(
    name: str, norm: nn.Module, width: int
) -> tuple[list[Cut], list[tuple[str, str]]] | None:
    """Cuts and converters of a norm over ``width`` features; None if its zeros don't stay zeros."""
    if getattr(norm, 'weight', None) is None:
        return None
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        # Behind a linear layer on (batch, length, width) it may well be one over the length.
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
    """The features between two linear layers, or None where something else stands between.

    Args:
        name: The producer's, and the group's.
        producer: The layer whose rows the features are.
        between: Name and module of what stands between the layers.
        consumers: Name and module of each layer that reads them.
        owner: The module whose forward pass uses them.
        sections: Where a consumer's columns for them begin.
    """
    cuts, converts = linear_cuts(name, producer, 'in', 1), []
    for path, module in between:
        if is_featurewise(module):
            continue
        norm = norm_parts(path, module, producer.out_features)
        if norm is None:
            return None
        cuts += norm[0]
        converts += norm[1]
    for consumer in consumers:
        cuts += linear_cuts(*consumer, 'out', 1, sections)
    size = producer.out_features
    return UnitGroup(name, 'branch', size, tuple(cuts), owner, (), tuple(converts), least=1)


@BranchNeurons.layout('Sequential')
def sequential(name: str, module: nn.Module) -> list[UnitGroup]:
    """Every hidden width of a chain of linear layers, none of which occurs twice in it."""
    children = module._modules.items()  # with those that occur twice
    weighted = [layer for _, layer in children if next(layer.parameters(), None) is not None]
    # A subclass is something of its own, which may have a layout of its own.
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
    """mmdet's heads of boxes with linear layers, shared ones and then some for each output."""
    require(defined_by(module, 'forward') == 'ConvFCBBoxHead', 'a forward pass of its own')
    require(isinstance(module.relu, nn.ReLU), 'its activation is no ReLU')
    shared, chains, readers = named_linears(name, module, 'shared_fcs'), [], []
    for part in ('cls', 'reg'):
        chain = named_linears(name, module, f'{part}_fcs')
        if getattr(module, f'with_{part}'):
            chain.append((join(name, f'fc_{part}'), getattr(module, f'fc_{part}')))
        chains.append(chain)
        readers += chain[:1]
    linear = all(isinstance(layer, nn.Linear) for chain in chains for _, layer in chain)
    require(linear, 'an output is no linear layer')
    groups = []
    for chain, after in ((shared, readers), *((chain, []) for chain in chains)):
        following = [*([reader] for reader in chain[1:]), after]
        for (path, producer), reading in zip(chain, following, strict=False):
            if reading:
                groups.append(hidden_features(path, producer, [], reading, name))
    return groups


def named_linears(name: str, module: nn.Module, child: str) -> list[tuple[str, nn.Module]]:
    """The layers of a ``ModuleList`` with their names in the model."""
    layers = getattr(module, child).named_children()
    return [(join(name, f'{child}.{number}'), layer) for number, layer in layers]
