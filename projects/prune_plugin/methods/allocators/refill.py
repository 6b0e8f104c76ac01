"""As many units as single-weight pruning would leave whole ones."""

import torch

from ...common.registry import ALLOCATORS
from ...common.validation import check_number
from ..saliency import remaining_shares
from .base import Allocator


@ALLOCATORS.register_module()
class Refill(Allocator):
    """Each group keeps as many whole units as the single weights would fill that pruning leaves it.

    All weights that compute units are pruned by magnitude, over all groups together, by the budget's
    ratio. Where those that stay would fill n of a group's C units, ``int(n + (C - n) * fillback_rate)``
    units are kept: the ones with the highest scores, completely refilled. So the budget's ratio is one of
    weights; what comes of it in units is reported.

    Args:
        fillback_rate: 0: Refill; above: Refill+, that share of the units in excess stays too.

    Source: Chen et al., "Coarsening the Granularity: Towards Structurally Sparse Lottery Tickets", arXiv
    2202.04736, and its code (github.com/VITA-Group/Structure-LTH).

    Example:
        >>> prune_cfg = dict(criterion=dict(type='Remain'), allocator=dict(type='Refill'),
        ...     budget=dict(type='units', ratio=0.8))
    """

    depends_on_weights = True

    def __init__(self, fillback_rate: float = 0.0):
        check_number('fillback_rate', fillback_rate, 0, 1, least=True)
        self.fillback_rate = float(fillback_rate)
        self.counts: dict[str, int] = {}

    def look(self, groups, tensors, ratio):
        """See :meth:`Allocator.look`."""
        shares = remaining_shares(groups, tensors, ratio)
        for group, share in zip(groups, shares, strict=True):
            filled = float(share.sum())
            more = (group.size - filled) * self.fillback_rate
            self.counts[group.name] = int(filled + more + 1e-9)

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`; the limit of the constraint isn't read."""
        counts = torch.tensor([self.counts[group.name] for group in constraint.members])
        if round_to > 1:
            counts = counts // round_to * round_to
        return torch.maximum(counts, floors)
