"""Growing regularization: an L2 penalty whose strength grows in equal increments up to a ceiling."""

from math import inf

from ...common.registry import PENALTIES
from ...common.validation import at_least, check_number
from .base import Penalty


@PENALTIES.register_module()
class GReg(Penalty):
    """Adds ``min(k * increment, strength) * w`` to the gradients of the units to remove.

    k is 1 at first and grows by 1 every ``interval`` optimizer steps.

    Args:
        increment: Growth of the factor per interval.
        interval: Optimizer steps between two increments.
        strength: The largest factor.

    Source: Wang et al., "Neural Pruning via Growing Regularization", arXiv 2012.09243, algorithm 1.

    Example:
        >>> prune_cfg = dict(penalty=dict(type='GReg', increment=1e-3, interval=10))
    """

    def __init__(self, increment: float = 1e-4, interval: int = 10, strength: float = 1.0):
        super().__init__(strength)
        check_number('increment', increment, 0, inf)
        at_least('interval', interval, 1)
        self.increment, self.interval = float(increment), interval

    def at(self, step, steps):
        """See :meth:`Penalty.at`."""
        return min(self.increment * (step // self.interval + 1), self.strength)
