"""Magnitude of a unit's activations."""

import torch

from ...calibration.statistics import Statistic
from ...common.registry import CRITERIA
from ...common.validation import one_of
from .base import Criterion, check_read, expert_outputs

NORMS = ('l1', 'l2')


@CRITERIA.register_module()
class Activation(Criterion):
    """Magnitude of a unit's activations on calibration data, at the inputs of the layers that read it.

    Experts of a mixture are scored by the mean norm of what they add to their tokens.

    Args:
        norm: ``'l1'``: mean absolute value, ``'l2'``: root mean square, over samples and positions, and
            over all features of the unit (for a head: all its dimensions).
        normalize: See :class:`Criterion`.

    Source: as the criteria "l1" and "l2" of Structure-LTH's code (github.com/VITA-Group/Structure-LTH), on
    calibration samples instead of one training batch.

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Activation', norm='l2'))
    """

    statistics = frozenset((Statistic.ACTIVATIONS,))

    def __init__(self, norm: str = 'l2', normalize: str = 'none'):
        super().__init__(normalize)
        self.norm = one_of('norm', norm, NORMS)

    def check(self, groups):
        """See :meth:`Criterion.check`."""
        check_read(self, groups)

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        if group.kind == 'expert':
            return expert_outputs(self, group, statistics)
        readers = [cut for cut in group.cuts if cut.side == 'out']
        total = torch.zeros(group.size, dtype=torch.float64)
        for cut in readers:
            if self.norm == 'l2':
                features = statistics.input_rms[cut.name].square()
            else:
                features = statistics.input_mean_abs[cut.name]
            total = total + features.cpu()[cut.indices(group.size)].mean(1)
        total = total / len(readers)
        return total.sqrt() if self.norm == 'l2' else total
