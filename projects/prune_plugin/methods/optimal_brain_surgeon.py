"""Optimal-brain-surgeon algebra on the Hessian of a layer's squared output error."""

import logging
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..calibration.layer_inputs import check_inputs
from ..common.errors import UserError

#: How often a Hessian that isn't positive definite is damped ten times harder before giving up.
RETRIES = 3


def damped_factor(gram: Tensor, damping: float, name: str, of_inverse: bool) -> Tensor:
    """A Cholesky factor of the damped Gram matrix, or of its inverse.

    Inputs that are always zero get a diagonal of 1.

    Args:
        gram: Sum of outer products of the inputs, (inputs, inputs); left as it is.
        damping: Share of the mean diagonal that is added to the diagonal; ten times more, up to
            three times over, if the matrix isn't positive definite then.
        name: The layer, for messages.
        of_inverse: The upper factor U of the inverse (``inverse = U.T @ U``) instead of the lower
            factor of the matrix itself.

    Raises:
        UserError: NaN or infinite inputs; not positive definite even then.
    """
    check_inputs(gram, name)
    diagonal = gram.diagonal()
    unused = diagonal == 0
    mean = diagonal.mean().clamp_min(torch.finfo(gram.dtype).tiny)
    for attempt in range(RETRIES + 1):
        share = damping * 10**attempt
        matrix = gram.clone()
        matrix.diagonal().add_(share * mean)
        matrix.diagonal()[unused] = 1
        # With L L.T the matrix turned back to front, the inverse of L, turned likewise, is U.
        factor, failed = torch.linalg.cholesky_ex(matrix.flip(0, 1) if of_inverse else matrix)
        if of_inverse and not failed:
            one = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
            factor = torch.linalg.solve_triangular(factor, one, upper=False).flip(0, 1)
        if not failed and bool(torch.isfinite(factor).all()):
            return factor
        if attempt < RETRIES:
            print_log(
                f'{name}: the Hessian is not positive definite at damping {share:g}; trying '
                f'{share * 10:g}',
                'current',
                logging.WARNING,
            )
    raise UserError(
        f'{name}: the Hessian is not positive definite even at damping {share:g}; raise damping or '
        'calibration.num_samples, or name the layer in prune_cfg.exclude'
    )


def toward_dense(
    weights: Sequence[Tensor],
    gram: Tensor,
    drift: Tensor,
    strength: float,
    damping: float,
    name: str,
) -> list[Tensor]:
    """Weights that put out, on the inputs at hand, more of what they do on the dense model's inputs.

    At full strength they minimise ``||X V.T - X' W.T||^2 / n + d ||V - W||^2`` over V, X and X' being n
    inputs at hand and in the dense model, and d ``damping`` times the mean diagonal of ``gram``.

    Args:
        weights: W of layers with the same inputs, float32 (outputs, inputs) each.
        gram: ``X.T @ X / n``, (inputs, inputs).
        drift: ``(X' - X).T @ X / n``, (inputs, inputs).
        strength: How far to go from W (0) to V (1).
        damping: See above.
        name: The layers, for messages.
    """
    stacked = torch.cat(list(weights))
    factor = damped_factor(gram, damping, name, of_inverse=False)
    change = torch.cholesky_solve((stacked @ drift).T, factor).T
    return list(stacked.add_(change, alpha=strength).split([len(weight) for weight in weights]))
