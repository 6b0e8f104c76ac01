"""Weights times the norm of what they read, compared within each output's row."""

import torch
from torch import Tensor

from ...calibration.layer_inputs import check_inputs, input_rows, over_ranks, weight_matrix
from ...common.registry import SPARSIFIERS
from ..saliency import wanda_elements
from ..weight_masks import keep_n_of_m
from .base import Sparsifier


def keep_rows(scores: Tensor, ratio: float) -> Tensor:
    """Mask that drops ``round(ratio * inputs)`` of the smallest scores of every row.

    Args:
        scores: (outputs, inputs).
        ratio: Fraction removed, in [0, 1).
    """
    drop = round(ratio * scores.shape[1])
    keep = torch.ones_like(scores, dtype=torch.bool)
    return keep.scatter_(1, scores.topk(drop, dim=1, largest=False, sorted=False).indices, False)


@SPARSIFIERS.register_module()
class Wanda(Sparsifier):
    """Remove from every output's row the weights with the smallest ``|W_ij| * ||x_j||``.

    One forward pass of the dense model over the calibration data, no backward pass; the weights that stay
    are kept as they are. (The paper's code looks at inputs behind pruned blocks; at high ratios those of
    the dense model choose better.)

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
        """Squares of each input feature, float64 (inputs,), and the number of rows."""
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

    def prune(self, weights, statistic, ratios, before=None):
        """See :meth:`Sparsifier.prune`."""
        check_inputs(statistic, ', '.join(weights))
        done = {}
        for name, weight in weights.items():
            # In half precision many scores would tie.
            scores = wanda_elements(weight.float(), statistic)
            if before is not None:
                scores = scores.masked_fill(~before[name], -1)
            if self.pattern:
                keep = keep_n_of_m(scores, *self.pattern, name)
            else:
                keep = keep_rows(scores, ratios[name])
            done[name] = (weight * keep, keep)
        return done
