"""Wanda scores of units: weights times the norm of their inputs."""

import torch

from ...calibration.statistics import Statistic
from ...common.registry import CRITERIA
from ...structure.unit_group import sum_per_unit
from ..saliency import wanda_elements
from .base import Criterion, check_read, expert_outputs


@CRITERIA.register_module()
class Wanda(Criterion):
    """Sum of ``|W_ij| * ||x_j||`` over the weights that read a unit. Needs no gradients.

    Experts of a mixture are scored by the mean norm of what they add to their tokens.

    Args:
        normalize: See :class:`Criterion`.

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", arXiv
    2306.11695; summed over a unit's output weights as in An et al., "FLAP", arXiv 2312.11983.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Wanda'), calibration=dict(num_samples=128))
    """

    statistics = frozenset((Statistic.ACTIVATIONS,))

    def check(self, groups):
        """See :meth:`Criterion.check`."""
        check_read(self, groups)

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        if group.kind == 'expert':
            return expert_outputs(self, group, statistics)
        total = torch.zeros(group.size, dtype=torch.float64)
        for cut in (cut for cut in group.cuts if cut.side == 'out'):
            elements = wanda_elements(tensors[cut.name], statistics.input_rms[cut.name], cut.dim)
            total = total + sum_per_unit(elements, cut, group.size).to(total)
        return total
