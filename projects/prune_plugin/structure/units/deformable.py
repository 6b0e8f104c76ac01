"""Heads and sampling points of deformable attention."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Attr, Cut, UnitGroup
from .attention import linear_cuts
from .finder import UnitFinder, join

#: Logit of a masked point: its softmax weight is zero in all floating-point types.
NO_WEIGHT = -1e4


@UNITS.register_module()
class DeformableHeads(UnitFinder):
    """Heads of deformable attention, with their values, offsets, weights and output columns.

    Source: Zhu et al., "Deformable DETR", arXiv 2010.04159.

    Example:
        >>> prune_cfg = dict(units=[dict(type='DeformableHeads')])
    """


@UNITS.register_module()
class SamplingPoints(UnitFinder):
    """Sampling points of deformable attention, the same ones in all heads and levels.

    Not among the default units: their importance can't be estimated without calibration data, as the
    sampled locations depend on the query. Found in VAD's attention modules.

    Example:
        >>> prune_cfg = dict(units=[dict(type='SamplingPoints')], criterion=dict(type='Taylor'))
    """

    default = False


def head_group(name: str, module: nn.Module, inner: str = '', label: str = '') -> UnitGroup:
    """The group of heads of one deformable attention module.

    Args:
        name: Name of the module that holds ``output_proj``.
        module: That module.
        inner: Path, relative to it, of the module with the other projections, if they are in another one.
        label: Name of the group; default: ``name``.
    """
    core = module.get_submodule(inner)
    path = join(name, inner) if inner else name
    heads = core.num_heads
    cuts = []
    for part in ('sampling_offsets', 'attention_weights', 'value_proj'):
        linear = core.get_submodule(part)
        cuts += linear_cuts(join(path, part), linear, 'in', linear.out_features // heads)
    output = module.output_proj
    cuts += linear_cuts(join(name, 'output_proj'), output, 'out', output.in_features // heads)
    attrs = (Attr(path, 'num_heads'),)
    return UnitGroup(label or name, 'deformable', heads, tuple(cuts), name, attrs, least=1)


def point_group(name: str, module: nn.Module, maps: int, points_per_unit: int = 1) -> UnitGroup:
    """The group of sampling points of one deformable attention module.

    Rows of offsets and weights are ordered heads x maps x levels x points (x 2 coordinates).

    Args:
        name: Name of the module with the projections.
        module: That module.
        maps: Number of feature maps that a query samples from.
        points_per_unit: Neighbouring points that have to be removed together.
    """
    blocks = range(module.num_heads * maps * module.num_levels)
    points = module.num_points
    cuts = []
    for part, coordinates, fill in (
        ('sampling_offsets', 2, 0.0),
        ('attention_weights', 1, NO_WEIGHT),
    ):
        sections = tuple(block * points * coordinates for block in blocks)
        width = points_per_unit * coordinates
        cuts.append(Cut(join(name, f'{part}.weight'), 0, width, sections))
        cuts.append(Cut(join(name, f'{part}.bias'), 0, width, sections, fill=fill))
    label = join(name, 'sampling_offsets')
    attrs = (Attr(name, 'num_points', points_per_unit),)
    return UnitGroup(label, 'point', points // points_per_unit, tuple(cuts), name, attrs, least=1)


@DeformableHeads.layout('MultiScaleDeformableAttention')
def mmcv_heads(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmcv's module (Deformable DETR, DINO). Its points are kept: offsets depend on their number."""
    return [head_group(name, module)]
