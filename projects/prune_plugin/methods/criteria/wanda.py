"""Wanda scores of units: weights times the norm of their inputs."""

import torch

from ...calibration.statistics import Statistic
from ...common.registry import CRITERIA
from ...common.validation import one_of
from ...structure.unit_group import sum_per_unit
from ..saliency import wanda_elements
from .activation import NORMS, Activation
from .base import Criterion, check_read, expert_outputs
from .magnitude import L1


@CRITERIA.register_module()
class Wanda(Criterion):
    """Sum of ``|W_ij| * ||x_j||`` over the weights that read a unit. Needs no gradients.

    Experts of a mixture are scored by the mean norm of what they add to their tokens.

    Args:
        normalize: See :class:`Criterion`.
        parts: ``'out'``: the weights that read a unit, each times the norm of its own input. ``'both'``:
            all weights of a unit, times the norm of its activation; that of several features is the mean.
        norm: ``'l2'``: the root mean square over samples and positions, as in the papers; ``'l1'``: the
            mean absolute value. ``parts='both', norm='l1'`` is the sum of ``|w| * A`` over a unit's weights
            w, with its mean activation A.

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", arXiv
    2306.11695; summed over a unit's output weights as in An et al., "FLAP", arXiv 2312.11983.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Wanda'), calibration=dict(num_samples=128))
    """

    statistics = frozenset((Statistic.ACTIVATIONS,))

    def __init__(self, normalize: str = 'none', parts: str = 'out', norm: str = 'l2'):
        super().__init__(normalize)
        self.parts = one_of('parts', parts, ('out', 'both'))
        self.norm = one_of('norm', norm, NORMS)

    def check(self, groups):
        """See :meth:`Criterion.check`."""
        check_read(self, groups)

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        if group.kind == 'expert':
            return expert_outputs(self, group, statistics)
        if self.parts == 'both':
            activation = Activation(self.norm).score(group, tensors, statistics)
            return activation * L1('both').score(group, tensors, statistics)
        inputs = statistics.input_rms if self.norm == 'l2' else statistics.input_mean_abs
        total = torch.zeros(group.size, dtype=torch.float64)
        for cut in (cut for cut in group.cuts if cut.side == 'out'):
            elements = wanda_elements(tensors[cut.name], inputs[cut.name], cut.dim)
            total = total + sum_per_unit(elements, cut, group.size).to(total)
        return total
