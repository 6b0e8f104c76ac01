"""How much of a unit single-weight pruning would leave."""

from ...common.registry import CRITERIA
from ..saliency import remaining_shares
from .base import Criterion


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

    def raw_scores(self, groups, tensors, statistics, ratio):
        """See :meth:`Criterion.raw_scores`."""
        return remaining_shares(groups, tensors, ratio or 0.0)
