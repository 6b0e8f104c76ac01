"""Global ranking by importance."""

from ...common.registry import ALLOCATORS
from .base import Allocator, greedy


@ALLOCATORS.register_module()
class Global(Allocator):
    """One ranking of all units by importance, regardless of their cost.

    Example:
        >>> prune_cfg = dict(allocator=dict(type='Global'), budget=dict(type='units', ratio=0.5))
    """

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`."""
        return greedy(scores, constraint, floors, round_to, per_cost=False)
