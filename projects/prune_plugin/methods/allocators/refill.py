"""As many units as single-weight pruning would leave whole ones."""

from copy import copy

import torch

from ...common.registry import ALLOCATORS
from ...common.validation import check_number
from ..saliency import remaining_shares
from .base import Allocator, fill_back


@ALLOCATORS.register_module()
class Refill(Allocator):
    """Each group keeps as many whole units as the single weights would fill that pruning leaves it.

    All weights that compute units are pruned by magnitude, over all groups together, by the budget's
    ratio. Where those that are kept would fill n of a group's C units, ``int(n + (C - n) * fillback_rate)``
    units are kept: the ones with the highest scores, completely refilled. So the budget's ratio is one of
    weights; what comes of it in units is reported.

    Args:
        fillback_rate: Fraction of the units that would be removed which is kept, in [0, 1): 0 is Refill,
            above is Refill+.

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

    def fitted(self, groups, tensors, ratio):
        """See :meth:`Allocator.fitted`."""
        filled = [share.sum() for share in remaining_shares(groups, tensors, ratio)]
        sizes = torch.tensor([group.size for group in groups])
        counts = fill_back(torch.stack(filled), sizes, self.fillback_rate)
        fitted = copy(self)
        fitted.counts = {g.name: int(n) for g, n in zip(groups, counts, strict=True)}
        return fitted

    def allocate(self, scores, constraint, floors, round_to=1):
        """See :meth:`Allocator.allocate`; the limit of the constraint isn't read."""
        counts = torch.tensor([self.counts[group.name] for group in constraint.members])
        counts = counts // round_to * round_to
        return torch.maximum(counts, floors)
