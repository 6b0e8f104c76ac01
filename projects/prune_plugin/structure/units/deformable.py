"""Deformable attention: its heads, and the points that each head samples."""

from torch import nn

from ...common.registry import UNITS
from ..unit_group import Attr, Cut, UnitGroup
from .attention import linear_cuts
from .finder import UnitFinder, join

#: What a masked point's logit is: its share of a softmax is zero in all float types.
NO_WEIGHT = -1e4


@UNITS.register_module()
class DeformableHeads(UnitFinder):
    """Heads of deformable attention: values, offsets, weights and output columns go together.

    Source: Zhu et al., "Deformable DETR", arXiv 2010.04159.

    Example:
        >>> prune_cfg = dict(units=[dict(type='DeformableHeads')])
    """


@UNITS.register_module()
class SamplingPoints(UnitFinder):
    """Sampling points of deformable attention: all heads and levels lose the same ones.

    Not among the default units: without calibration data there is no telling points apart, as what
    they look at depends on the query. VAD's attention modules have them.

    Example:
        >>> prune_cfg = dict(units=[dict(type='SamplingPoints')], criterion=dict(type='Taylor'))
    """

    default = False


def head_group(name: str, module: nn.Module, inner: str = '', label: str = '') -> UnitGroup:
    """The heads of one deformable attention module.

    Args:
        name: The module that holds ``output_proj``.
        module: That module.
        inner: Path below it of the module with the other projections, if that is another one.
        label: Name of the group; ``name`` if empty.
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


def point_group(name: str, module: nn.Module, maps: int, together: int = 1) -> UnitGroup:
    """The sampling points of one deformable attention module.

    Offsets and weights are ordered heads x maps x levels x points (x 2).

    Args:
        name: The module with the projections.
        module: That module.
        maps: Feature maps that a query samples.
        together: Neighbouring points that only make sense together.
    """
    blocks = range(module.num_heads * maps * module.num_levels)
    points = module.num_points
    cuts = []
    for part, numbers, fill in (('sampling_offsets', 2, 0.0), ('attention_weights', 1, NO_WEIGHT)):
        sections = tuple(block * points * numbers for block in blocks)
        width = together * numbers
        cuts.append(Cut(join(name, f'{part}.weight'), 0, width, sections))
        cuts.append(Cut(join(name, f'{part}.bias'), 0, width, sections, fill=fill))
    label = join(name, 'sampling_offsets')
    attrs = (Attr(name, 'num_points', together),)
    return UnitGroup(label, 'point', points // together, tuple(cuts), name, attrs, least=1)


@DeformableHeads.layout('MultiScaleDeformableAttention')
def mmcv_heads(name: str, module: nn.Module) -> list[UnitGroup]:
    """mmcv's, of Deformable DETR and DINO. Its points aren't cut: its offsets depend on their number."""
    return [head_group(name, module)]
