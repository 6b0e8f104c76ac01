"""Size of the weights."""

import torch

from ..registry import CRITERIA
from ..units.base import sum_per_unit, weight_cuts
from .base import Criterion, one_of

PARTS = ('in', 'out', 'both')


@CRITERIA.register_module()
class L1(Criterion):
    """Sum of the absolute weights of a unit. Needs no data.

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
            total = total + self.per_cut(tensors[cut.name], cut, group.size).to(total)
        return self.finish(total)

    @staticmethod
    def per_cut(weight, cut, size):
        """What one tensor adds to the units."""
        return sum_per_unit(weight.abs(), cut, size)

    @staticmethod
    def finish(total):
        """From the sum over tensors to the score."""
        return total


@CRITERIA.register_module()
class L2(L1):
    """Euclidean norm of the weights of a unit. Needs no data.

    Args:
        parts: As in :class:`L1`.
        normalize: See :class:`Criterion`.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='L2'))
    """

    @staticmethod
    def per_cut(weight, cut, size):
        """See :meth:`L1.per_cut`."""
        return sum_per_unit(weight.square(), cut, size)

    @staticmethod
    def finish(total):
        """See :meth:`L1.finish`."""
        return total.sqrt()
