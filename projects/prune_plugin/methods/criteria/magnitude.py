"""Magnitude of a unit's weights."""

import torch
from torch import Tensor

from ...common.precision import at_least_float32
from ...common.registry import CRITERIA
from ...common.validation import one_of
from ...structure.unit_group import sum_per_unit, weight_cuts
from .base import Criterion

PARTS = ('in', 'out', 'both')


@CRITERIA.register_module()
class L1(Criterion):
    """Sum of the absolute values of a unit's weights. Needs no data.

    Args:
        parts: ``'in'`` for the weights that compute the unit, ``'out'`` for those that read it,
            ``'both'`` for all.
        normalize: See :class:`Criterion`.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", arXiv 1608.08710.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='L1', parts='in'))
    """

    def __init__(self, parts: str = 'both', normalize: str = 'none'):
        super().__init__(normalize)
        self.parts = one_of('parts', parts, PARTS)

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        total = torch.zeros(group.size, dtype=torch.float64)
        for cut in weight_cuts(group, tensors, self.parts):
            elements = self.elements(tensors[cut.name])
            total = total + sum_per_unit(elements, cut, group.size).to(total)
        return total

    @staticmethod
    def elements(weight: Tensor) -> Tensor:
        """Each weight's contribution to the score of its unit, shaped as ``weight``."""
        return weight.abs()


@CRITERIA.register_module()
class L2(L1):
    """Sum of the squares of a unit's weights. Needs no data.

    The squared norm is additive over the parts of a unit, so score per cost doesn't depend on the unit's
    size; among units of one size it ranks as the norm does.

    Args:
        parts: As in :class:`L1`.
        normalize: See :class:`Criterion`.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='L2'))
    """

    @staticmethod
    def elements(weight: Tensor) -> Tensor:
        """See :meth:`L1.elements`."""
        return at_least_float32(weight).square()
