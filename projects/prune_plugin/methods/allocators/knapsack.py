"""Global ranking by importance per cost."""

from ...common.registry import ALLOCATORS
from .base import Allocator, greedy


@ALLOCATORS.register_module()
class Knapsack(Allocator):
    """One ranking of all units by importance per cost: the greedy solution of the fractional knapsack.

    Units of different cost (a GQA group, an MLP channel) compete in one ranking, which so determines the
    split between attention and MLP, and between layers.

    Example:
        >>> prune_cfg = dict(allocator=dict(type='Knapsack'), budget=dict(type='params', ratio=0.25))
    """

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`."""
        return greedy(scores, constraint, floors, round_to, per_cost=True)
