"""Magnitude pruning of single weights."""

import torch

from ...common.registry import SPARSIFIERS
from ...common.validation import one_of
from ..weight_masks import keep_largest, keep_n_of_m
from .base import Sparsifier


@SPARSIFIERS.register_module()
class Magnitude(Sparsifier):
    """Remove the weights of smallest absolute value.

    Args:
        scope: ``'layer'``: the ratio is removed from every layer; ``'global'``: from all layers together.
        pattern: See :class:`Sparsifier`.

    Source: Han et al., "Learning both Weights and Connections", arXiv 1506.02626.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='Magnitude', pattern='2:4'))
    """

    def __init__(self, scope: str = 'layer', pattern: str | None = None):
        super().__init__(pattern)
        self.scope = one_of('scope', scope, ('layer', 'global'))
        self.ranks_together = self.scope == 'global' and not self.pattern

    def keep_masks(self, weights, ratio):
        """See :meth:`Sparsifier.keep_masks`."""
        if self.pattern:
            self.check_ratio(ratio)
            n, m = self.pattern
            return {name: keep_n_of_m(w.abs(), n, m, name) for name, w in weights.items()}
        if self.scope == 'layer':
            return {name: keep_largest(w.abs(), ratio) for name, w in weights.items()}
        flat = torch.cat([w.detach().abs().flatten() for w in weights.values()])
        parts = keep_largest(flat, ratio).split([w.numel() for w in weights.values()])
        return {n: p.view(weights[n].shape) for n, p in zip(weights, parts, strict=True)}
