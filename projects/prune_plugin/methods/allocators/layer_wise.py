"""Layer-wise ratios by the importance of each layer."""

import math
from collections.abc import Mapping, Sequence
from operator import eq

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.patterns import check_matches
from ...common.registry import ALLOCATORS
from ...common.validation import check_number
from .base import Allocator, check_reachable, least_scale, restore_rounded_units, rounded_floors


@ALLOCATORS.register_module()
class LayerWise(Allocator):
    """Remove a larger fraction from less important layers; within a layer, groups are pruned separately.

    A baseline for global ranking. A layer's importance ``I`` is the sum of its units' scores, divided by
    the mean of these sums over layers. A group of kind ``k`` loses the fraction
    ``min(1, t * factor[k] / I)`` of its units, rounded to whole units (or chunks of ``round_to``), but
    keeps at least its floor. The scale ``t`` is the smallest that meets the budget, found by bisection.
    Counts are fixed group by group, those with the most expensive units first: groups that were rounded
    down get a unit back, largest remainder first, as long as the budget is met. Then ``t`` is recomputed
    for the remaining groups, whose cheaper units absorb the rounding error.

    Args:
        factors: Factors by kind, such as ``dict(attention=0.5, mlp=1.0)``; 1 for other kinds.

    Raises:
        UserError: the factors aren't a dict of numbers >= 0.

    Example:
        >>> prune_cfg = dict(allocator=dict(type='LayerWise', factors=dict(attention=0.5)))
    """

    def __init__(self, factors: Mapping[str, float] = {}):  # noqa: B006  read, never changed
        if not isinstance(factors, Mapping):
            raise UserError(f'factors is {factors!r}; it must be a dict of numbers by kind')
        for kind, factor in factors.items():
            check_number(f'factors.{kind}', factor, 0, math.inf, least=True)
        self.factors = dict(factors)

    def check(self, groups):
        """See :meth:`Allocator.check`; every kind in ``factors`` must be in the model."""
        kinds = [group.kind for group in groups]
        check_matches('prune_cfg.allocator.factors', self.factors, kinds, 'kinds of units', eq)

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`."""
        sizes = torch.tensor([len(score) for score in scores])
        weights = self.weights(scores, constraint.members)
        floors = torch.where(weights > 0, rounded_floors(floors, sizes, round_to), sizes)
        check_reachable(constraint, floors)

        def remaining(scale: float) -> Tensor:
            return sizes * (1 - (scale * weights).clamp(max=1))

        def counts(scale: float) -> Tensor:
            rounded = nearest_units(remaining(scale), sizes, floors, round_to)
            return torch.where(fixed, kept, rounded)

        kept, fixed = sizes, torch.zeros(len(sizes), dtype=torch.bool)
        most = 1 / float(weights[weights > 0].min()) if bool((weights > 0).any()) else 0.0
        prices = constraint.cost.marginal(sizes)
        for price in prices.unique().flip(0):
            scale = least_scale(lambda t: constraint.cost.total(counts(t)), constraint.limit, most)
            kept = counts(scale)
            fractional = torch.where(prices == price, remaining(scale), kept)
            kept = restore_rounded_units(fractional, kept, sizes, constraint, round_to)
            fixed = fixed | (prices == price)
        return kept

    def weights(self, scores: Sequence[Tensor], members: Sequence) -> Tensor:
        """``factor / I`` of every group, float64 (groups,); without ``members`` each group is a layer."""
        kinds = [group.kind for group in members]
        layers = [group.layer_idx for group in members] or list(range(len(scores)))
        sums: dict[int, float] = {}
        for layer, score in zip(layers, scores, strict=True):
            sums[layer] = sums.get(layer, 0.0) + float(score.sum())
        mean = math.fsum(sums.values()) / len(sums)
        # Keeps the weight of a layer without importance finite.
        least = 1e-6 * mean if mean > 0 else 1.0
        factors = [self.factors.get(kind, 1.0) for kind in kinds] or [1.0] * len(scores)
        weights = [
            factor * max(mean, least) / max(sums[layer], least)
            for factor, layer in zip(factors, layers, strict=True)
        ]
        return torch.tensor(weights, dtype=torch.float64)


def nearest_units(
    remaining: Tensor, sizes: Tensor, floors: Tensor, round_to: int | Tensor
) -> Tensor:
    """Round fractional counts to the nearest multiple of ``round_to`` or the whole group, halves down.

    Args:
        remaining: Fractional numbers of units, float64 (groups,).
        sizes: Units of each group, LongTensor (groups,).
        floors: Lower bounds of the result, LongTensor (groups,).
        round_to: Size of a chunk.
    """
    kept = (remaining / round_to - 0.5 - 1e-9).ceil().clamp(min=0).long() * round_to
    kept = torch.where((remaining - kept).abs() >= sizes - remaining, sizes, kept)
    return torch.maximum(kept, floors)
