"""ALPS: the mask of a layer by ADMM, the kept weights by conjugate gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...calibration.layer_inputs import check_inputs
from ...common.precision import without_tf32
from ...common.registry import SPARSIFIERS
from ...common.validation import at_least, check_number
from ..weight_masks import keep_largest, keep_n_of_m
from .layer_fit import LayerFit

#: Fraction of the iterations after which the mask has its final number of weights.
GRADUAL = 0.75


@without_tf32()
def admm(
    targets: Tensor,
    hessian: Tensor,
    keep_of: Callable[[Tensor, float], Tensor],
    iterations: int,
    penalty: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Sparse weights near targets: minimises ``tr((V - T) H (V - T).T)`` over V, with a limit on nonzeros.

    V is split into weights that fit and weights that are sparse, which an alternating direction method of
    multipliers (ADMM) brings together. Inputs are scaled to a unit diagonal of H first, so that magnitudes
    compare across them, and the number of weights removed grows cubically over the first iterations.

    Args:
        targets: T, float32 (outputs, inputs).
        hessian: H, positive definite, (inputs, inputs).
        keep_of: The mask of what is largest, from magnitudes and the fraction of the final removal so far.
        iterations: Each is a solution with one Cholesky factor, made once.
        penalty: Weight of the agreement (rho), relative to the diagonal of the scaled H.

    Returns:
        Weights, zero where removed, and a bool mask, True where kept.

    Source: Meng et al., "ALPS", arXiv 2406.07831; the fixed penalty and the gradual masks as in Boza, "Fast
    and Effective Weight Update for Pruned Large Language Models", arXiv 2401.02938.
    """
    scale = hessian.diagonal().sqrt()
    normal = hessian / scale[:, None] / scale
    image = (targets * scale) @ normal
    normal.diagonal().add_(penalty)
    factor = torch.linalg.cholesky(normal)
    fitted, dual = targets * scale, torch.zeros_like(targets)
    for iteration in range(1, iterations + 1):
        done = min(1.0, iteration / (GRADUAL * iterations))
        both = fitted + dual
        sparse = both * keep_of(both.abs(), 1 - (1 - done) ** 3)
        dual = both - sparse
        fitted = torch.cholesky_solve((image + penalty * (sparse - dual)).T, factor).T
    both = fitted + dual
    keep = keep_of(both.abs(), 1.0)
    return both * keep / scale, keep


@SPARSIFIERS.register_module()
class ALPS(LayerFit):
    """Choose the weights of a layer together by ADMM, and fit the kept ones by conjugate gradients.

    SparseGPT decides column by column, and never takes a decision back; here all columns are decided again
    in every iteration. Data, passes and targets are the same. It takes more time per layer and loses less
    at high ratios.

    Args:
        pattern: See :class:`Sparsifier`.
        iterations: Of the ADMM.
        penalty: Weight of the agreement between fitted and sparse weights (rho); the inputs' diagonal is 1.
        damping: Fraction of the Hessian's mean diagonal to add to its diagonal.
        dense_targets: See :class:`SparseGPT`.
        dense_share: See :class:`SparseGPT`.
        targets: See :class:`SparseGPT`.
        refinement: See :class:`SparseGPT`.
        weigh_outputs: See :class:`SparseGPT`.

    Source: Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language
    Models", arXiv 2406.07831.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='ALPS'), budget=dict(ratio=0.7))
    """

    def __init__(
        self,
        pattern: str | None = None,
        iterations: int = 20,
        penalty: float = 1.0,
        damping: float = 0.01,
        dense_targets: float = 0.75,
        dense_share: float = 0.4,
        targets: str = 'layer',
        refinement: int = 15,
        weigh_outputs: float = 0.0,
    ):
        fit = damping, dense_targets, dense_share, targets, refinement, weigh_outputs
        super().__init__(pattern, *fit)
        at_least('iterations', iterations, 1)
        check_number('penalty', penalty, 0, float('inf'))
        self.iterations, self.penalty = iterations, float(penalty)

    def choose(self, targets, gram, ratios, previous_masks, name):
        """See :meth:`LayerFit.choose`."""
        check_inputs(gram, name)
        rows = [len(target) for target in targets]
        hessian = gram.clone()
        mean = gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
        hessian.diagonal().add_(self.damping * mean)
        hessian.diagonal()[gram.diagonal() == 0] = 1
        earlier = None if previous_masks is None else torch.cat(list(previous_masks))

        def keep_of(size: Tensor, share: float) -> Tensor:
            if earlier is not None:
                size = size.masked_fill(~earlier, -1)
            if self.pattern:
                return keep_n_of_m(size, *self.pattern, name)
            parts = zip(size.split(rows), ratios, strict=True)
            return torch.cat([keep_largest(part, share * ratio) for part, ratio in parts])

        new, keep = admm(torch.cat(list(targets)), hessian, keep_of, self.iterations, self.penalty)
        return new.split(rows), keep.split(rows)
