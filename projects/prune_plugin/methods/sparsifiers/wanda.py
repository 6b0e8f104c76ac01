"""Wanda: weights times the norm of their inputs, compared within each output's row."""

import torch
from torch import Tensor

from ...calibration.layer_inputs import check_inputs, input_rows, over_ranks, weight_matrix
from ...common.registry import SPARSIFIERS
from ..saliency import wanda_elements
from ..weight_masks import keep_n_of_m
from .base import Sparsifier


def keep_rows(scores: Tensor, ratio: float) -> Tensor:
    """Mask that removes the ``round(ratio * inputs)`` smallest scores of every row.

    Args:
        scores: (outputs, inputs).
        ratio: Fraction removed, in [0, 1).

    Returns:
        Bool (outputs, inputs), True where kept.
    """
    count = round(ratio * scores.shape[1])
    keep = torch.ones_like(scores, dtype=torch.bool)
    return keep.scatter_(1, scores.topk(count, dim=1, largest=False, sorted=False).indices, False)


@SPARSIFIERS.register_module()
class Wanda(Sparsifier):
    """Remove from every output's row the weights with the smallest ``|W_ij| * ||x_j||``.

    One forward pass of the dense model over the calibration data, no backward pass; kept weights don't
    change. (The paper's code uses inputs that already pruned blocks produce; at high ratios the dense
    model's inputs give better masks.)

    Args:
        pattern: See :class:`Sparsifier`.

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", arXiv
    2306.11695.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='Wanda'))
    """

    reads_inputs = True
    sequential = False

    def begin(self, module):
        """Sum of squares of each input feature, float64 (inputs,), and the number of rows."""
        width = weight_matrix(module).shape[1]
        return [module.weight.new_zeros(width, dtype=torch.float64), 0]

    def add(self, total, module, x):
        """See :meth:`Sparsifier.add`."""
        rows = input_rows(module, x)
        total[0] += rows.square().sum(0)
        total[1] += len(rows)

    def finish(self, total):
        """Root mean square of each input feature, float64 (inputs,)."""
        squares, rows = over_ranks(*total)
        return (squares / max(rows, 1)).sqrt()

    def prune(self, weights, statistic, ratios, previous_masks=None):
        """See :meth:`Sparsifier.prune`."""
        check_inputs(statistic, ', '.join(weights))
        pruned = {}
        for name, weight in weights.items():
            # In half precision many scores would tie.
            scores = wanda_elements(weight.float(), statistic)
            if previous_masks is not None:
                scores = scores.masked_fill(~previous_masks[name], -1)
            if self.pattern:
                keep = keep_n_of_m(scores, *self.pattern, name)
            else:
                keep = keep_rows(scores, ratios[name])
            pruned[name] = (weight * keep, keep)
        return pruned
