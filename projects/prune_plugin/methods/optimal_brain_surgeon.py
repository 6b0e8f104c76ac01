"""Optimal brain surgeon: linear algebra on the Hessian of a layer's squared output error."""

import logging

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..calibration.layer_inputs import check_inputs
from ..common.errors import UserError
from ..common.precision import without_tf32

#: How often a Hessian that isn't positive definite is retried with ten times the damping.
RETRIES = 3
#: Least damping of conjugate gradients, which need no factorisation.
EPSILON = 1e-6


@without_tf32()
def damped_factor(gram: Tensor, damping: float, name: str, of_inverse: bool) -> Tensor:
    """Cholesky factor of the damped Gram matrix, or of its inverse.

    The diagonal is 1 for inputs that are always zero.

    Args:
        gram: Gram matrix of the inputs, ``X.T @ X`` or a multiple, (inputs, inputs); not changed.
        damping: Fraction of the mean diagonal to add to the diagonal. If the result isn't positive
            definite, ten times as much, up to three times, each of which is logged as a warning.
        name: The layer, for messages.
        of_inverse: Return the upper factor U of the inverse (``inverse = U.T @ U``) instead of the lower
            factor of the matrix itself.

    Returns:
        The factor, (inputs, inputs).

    Raises:
        UserError: the matrix is NaN or infinite, or not positive definite at the largest damping.
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
        # If L L.T is the matrix with both dimensions flipped, U is the inverse of L, flipped likewise.
        factor, failed = torch.linalg.cholesky_ex(matrix.flip(0, 1) if of_inverse else matrix)
        if of_inverse and not failed:
            identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
            factor = torch.linalg.solve_triangular(factor, identity, upper=False).flip(0, 1)
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


@without_tf32()
def toward_dense(
    weights: Tensor,
    gram: Tensor,
    shift: Tensor,
    strength: float,
    damping: float,
    name: str,
) -> Tensor:
    """Move weights toward those whose outputs differ by what the dense model's do.

    That corrects the accumulated error of the pruned layers before. The result is
    ``W + strength * (V - W)`` where V minimises ``||X V.T - X W.T - E||^2 / n + d ||V - W||^2``, X are n
    input rows in the pruned model, E what the outputs lack, and d is ``damping`` times the mean diagonal of
    ``gram``.

    Args:
        weights: W of layers that share an input, stacked, float32 (outputs, inputs).
        gram: ``X.T @ X / n``, (inputs, inputs).
        shift: ``E.T @ X / n``, (outputs, inputs); ``W @ (X' - X).T @ X / n`` for the dense outputs
            of inputs X'.
        strength: In [0, 1].
        damping: Fraction of the mean diagonal.
        name: The layers, for messages.

    Returns:
        New weights, float32 (outputs, inputs).

    Raises:
        UserError: see :func:`damped_factor`.
    """
    factor = damped_factor(gram, damping, name, of_inverse=False)
    change = torch.cholesky_solve(shift.T, factor).T
    return weights.clone().add_(change, alpha=strength)


@without_tf32()
def refit_kept(
    weights: Tensor, targets: Tensor, gram: Tensor, keep: Tensor, damping: float, steps: int
) -> Tensor:
    """Kept weights nearer to those whose outputs are closest to the targets', for a mask that stays.

    Every row is its own least-squares problem over its kept inputs; all rows take steps of conjugate
    gradients together, each a product with the Hessian, preconditioned by its diagonal.

    Args:
        weights: To begin with, float32 (outputs, inputs).
        targets: The dense weights, of the same shape.
        gram: Gram matrix of the inputs, ``X.T @ X`` or a multiple, (inputs, inputs).
        keep: Bool, of the weights' shape, True where kept.
        damping: Fraction of the mean diagonal to add to the diagonal.
        steps: Number of steps; the error never increases from one to the next.

    Returns:
        New weights, float32 (outputs, inputs), zero where removed.

    Source: Meng et al., "ALPS", arXiv 2406.07831, its second stage.
    """
    hessian = gram.clone()
    mean = gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    hessian.diagonal().add_(max(damping, EPSILON) * mean)
    hessian.diagonal()[gram.diagonal() == 0] = 1
    preconditioner = hessian.diagonal().reciprocal()
    tiny = torch.finfo(gram.dtype).tiny
    new = weights * keep
    residual = ((targets - new) @ hessian).mul_(keep)
    direction = residual * preconditioner
    product = (residual * direction).sum(1, keepdim=True)
    for _ in range(steps):
        step = (direction @ hessian).mul_(keep)
        length = product / (direction * step).sum(1, keepdim=True).clamp_min(tiny)
        new.addcmul_(length, direction)
        residual.addcmul_(length, step, value=-1)
        scaled = residual * preconditioner
        previous, product = product, (residual * scaled).sum(1, keepdim=True)
        direction.mul_(product / previous.clamp_min(tiny)).add_(scaled)
    return new
