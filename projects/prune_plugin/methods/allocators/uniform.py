"""The same ratio in every group."""

import torch

from ...common.errors import UserError
from ...common.registry import ALLOCATORS
from .base import (
    Allocator,
    check_reachable,
    least_scale,
    restore_rounded_units,
    rounded_floors,
    whole_units,
)


@ALLOCATORS.register_module()
class Uniform(Allocator):
    """Remove the same fraction of the units of every group.

    The fraction is the smallest that meets the limit; a group keeps at least its floor. The number of units
    kept is rounded down, so groups of equal size keep equal numbers.

    Args:
        exact: Restore up to one unit (with ``round_to``: one chunk) per group after rounding, those with
            the largest remainder first, as long as the limit is met.

    Raises:
        UserError: ``exact`` is no bool.

    Example:
        >>> prune_cfg = dict(allocator=dict(type='Uniform'), budget=dict(type='params', ratio=0.25))
    """

    def __init__(self, exact: bool = False):
        if not isinstance(exact, bool):
            raise UserError(f'exact is {exact!r}; it must be True or False')
        self.exact = exact

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`."""
        sizes = torch.tensor([len(score) for score in scores])
        floors = rounded_floors(floors, sizes, round_to)
        check_reachable(constraint, floors)

        def counts(fraction: float) -> torch.Tensor:
            return whole_units(sizes * (1 - fraction), sizes, floors, round_to)

        fraction = least_scale(lambda f: constraint.cost.total(counts(f)), constraint.limit, 1.0)
        if not self.exact:
            return counts(fraction)
        return restore_rounded_units(
            sizes * (1 - fraction), counts(fraction), sizes, constraint, round_to
        )
