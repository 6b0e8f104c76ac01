"""How much of a unit single-weight pruning would leave."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...common.registry import CRITERIA
from ...structure.unit_group import UnitGroup, sum_per_unit, weight_cuts
from ..sparsifiers.patterns import keep_largest
from .base import Criterion


def remaining_shares(
    groups: Sequence[UnitGroup], tensors: dict[str, Tensor], ratio: float
) -> list[Tensor]:
    """Of each unit the fraction of its computing weights that magnitude pruning over all groups leaves.

    Args:
        groups: Unit groups.
        tensors: The model's parameters by name.
        ratio: Fraction removed of all weights that compute a unit of these groups.

    Returns:
        float64 (units,) in [0, 1] per group.
    """
    cuts = [list(weight_cuts(group, tensors, 'in')) for group in groups]
    names = list(dict.fromkeys(cut.name for own in cuts for cut in own))
    if not names:
        return [torch.zeros(group.size, dtype=torch.float64) for group in groups]
    flat = torch.cat([tensors[name].detach().abs().float().flatten() for name in names])
    parts = keep_largest(flat, ratio).split([tensors[name].numel() for name in names])
    masks = {name: part.view(tensors[name].shape) for name, part in zip(names, parts, strict=True)}
    shares = []
    for group, own in zip(groups, cuts, strict=True):
        left = torch.zeros(group.size, dtype=torch.float64)
        total = torch.zeros(group.size, dtype=torch.float64)
        for cut in own:
            left += sum_per_unit(masks[cut.name].double(), cut, group.size).cpu()
            total += sum_per_unit(torch.ones(masks[cut.name].shape), cut, group.size)
        shares.append(left / total.clamp_min(1))
    return shares


@CRITERIA.register_module()
class Remain(Criterion):
    """Share of a unit's weights that single-weight pruning of the same ratio would leave. Needs no data.

    The weights that compute the units are pruned by magnitude over all groups together, by the budget's
    ratio; what counts is how many of a unit's are left.

    Args:
        normalize: See :class:`Criterion`.

    Source: Chen et al., "Coarsening the Granularity", arXiv 2202.04736 (its default for refilling).

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Remain'), allocator=dict(type='Refill'))
    """

    reads_ratio = True

    def scores(self, groups, tensors, statistics=None):
        """See :meth:`Criterion.scores`."""
        self.shares = {
            group.name: share
            for group, share in zip(
                groups, remaining_shares(groups, tensors, self.ratio), strict=True
            )
        }
        return super().scores(groups, tensors, statistics)

    def score(self, group, tensors, statistics):
        """See :meth:`Criterion.score`."""
        return self.shares[group.name]
