"""The same share of every layer."""

import torch
from torch import Tensor

from ..registry import ALLOCATORS
from .base import Allocator, check_reachable, rounded_floors


@ALLOCATORS.register_module()
class Uniform(Allocator):
    """Remove the same fraction of the units of every group.

    The fraction is the smallest that keeps the limit; groups stop at their floors.

    Example:
        >>> prune_cfg = dict(allocator=dict(type='Uniform'), budget=dict(type='params', ratio=0.25))
    """

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`."""
        sizes = torch.tensor([len(score) for score in scores])
        floors = rounded_floors(floors, sizes, round_to)
        check_reachable(constraint, floors)

        def counts(fraction: float) -> Tensor:
            kept = (sizes * (1 - fraction) + 1e-9).floor().long()
            kept = torch.where(kept < sizes, kept // round_to * round_to, kept)
            return torch.maximum(kept, floors)

        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if constraint.cost.total(counts(middle)) > constraint.limit:
                low = middle
            else:
                high = middle
        return counts(high)
