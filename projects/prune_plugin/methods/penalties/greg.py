"""Growing regularization: an L2 pull that grows by equal steps up to a ceiling."""

from math import inf

from ...common.registry import PENALTIES
from ...common.validation import at_least, check_number
from .base import Penalty


@PENALTIES.register_module()
class GReg(Penalty):
    """Adds ``k * increment * w`` to the gradients of leaving units; k grows every ``interval`` steps.

    Args:
        increment: By how much the factor grows.
        interval: Optimizer steps between two growths.
        strength: The ceiling.

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
