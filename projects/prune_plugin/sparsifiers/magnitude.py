"""Weight-level L1 pruning."""

import torch

from ..criteria.base import one_of
from ..errors import UserError
from ..registry import SPARSIFIERS
from .base import Sparsifier
from .patterns import keep_largest, keep_n_of_m, parse_pattern


@SPARSIFIERS.register_module()
class Magnitude(Sparsifier):
    """Remove the weights of smallest absolute value.

    Args:
        scope: ``'layer'``: the ratio holds in every layer; ``'global'``: over all layers together.
        pattern: None for unstructured, or ``'N:M'``: of M consecutive inputs, N are kept; the
            ratio must then be ``1 - N / M``.

    Source: Han et al., "Learning both Weights and Connections", arXiv 1506.02626.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='Magnitude', pattern='2:4'))
    """

    def __init__(self, scope: str = 'layer', pattern: str | None = None):
        self.scope = one_of('scope', scope, ('layer', 'global'))
        self.pattern = parse_pattern(pattern)

    def keep_masks(self, weights, ratio):
        """See :meth:`Sparsifier.keep_masks`."""
        if self.pattern:
            n, m = self.pattern
            if abs(ratio - (1 - n / m)) > 1e-9:
                raise UserError(
                    f'prune_cfg.budget.ratio is {ratio}, but pattern {n}:{m} removes {1 - n / m}'
                )
            return {name: keep_n_of_m(w.abs(), n, m, name) for name, w in weights.items()}
        if self.scope == 'layer':
            return {name: keep_largest(w.abs(), ratio) for name, w in weights.items()}
        flat = torch.cat([w.detach().abs().flatten() for w in weights.values()])
        parts = keep_largest(flat, ratio).split([w.numel() for w in weights.values()])
        return {n: p.view(weights[n].shape) for n, p in zip(weights, parts, strict=True)}
