"""Cubic schedule: large steps first, small ones towards the end."""

from ...common.registry import SCHEDULES
from ...common.validation import at_least
from .base import MOST_ROUNDS, Schedule


@SCHEDULES.register_module()
class Cubic(Schedule):
    """Removes the fraction ``target * (1 - (1 - k / n) ** 3)`` by the end of round k of n.

    Args:
        rounds: Number of rounds.
        lr_decay: See :class:`Schedule`.
        rewind: See :class:`Schedule`.

    Source: Zhu & Gupta, "To prune, or not to prune", arXiv 1710.01878, section 3 (initial sparsity 0).

    Example:
        >>> prune_cfg = dict(type='WeightPruner', schedule=dict(type='Cubic', rounds=10))
    """

    def __init__(self, rounds: int, lr_decay: float = 1.0, rewind: str | int | None = None):
        super().__init__(lr_decay, rewind)
        at_least('rounds', rounds, 1, MOST_ROUNDS)
        self.rounds = rounds

    def ratios(self, target):
        """See :meth:`Schedule.ratios`."""
        n = self.rounds
        return [target * (1 - (1 - k / n) ** 3) for k in range(1, n)] + [target]
