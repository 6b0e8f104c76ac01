"""Score per cost, over all layers and kinds."""

from ...common.registry import ALLOCATORS
from .base import Allocator, greedy


@ALLOCATORS.register_module()
class Knapsack(Allocator):
    """One ranking over every unit by importance per cost: the fractional-knapsack greedy.

    Units of unlike cost (a GQA group, an MLP channel) compete in one table, so the split between
    attention and MLP, and between layers, comes out by itself.

    Example:
        >>> prune_cfg = dict(allocator=dict(type='Knapsack'), budget=dict(type='params', ratio=0.25))
    """

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`."""
        return greedy(scores, constraint, floors, round_to, per_cost=True)
