"""Optimal brain surgeon: linear algebra on the Hessian of a layer's squared output error."""

import logging
from collections.abc import Sequence

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
#: By what fraction costs rise at least from one removed unit to the next.
RISE = 1e-9


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


@without_tf32()
def removal_costs(
    readers: Sequence[tuple[Tensor, Tensor, Tensor]], damping: float, at_once: int, name: str
) -> Tensor:
    """What removing each of some units costs, the others being refitted, in the order of a greedy removal.

    The cost is the increase of the squared error of the outputs of all layers that read the units, once the
    units that stay make up for the one that goes as well as they can; those removed before are gone. In
    every step the cheapest units go, and the inverse of the Gram matrix and the weights that stay follow.

    Args:
        readers: Of each layer that reads the units its weights, (outputs, inputs), the Gram matrix of its
            inputs, (inputs, inputs), and the inputs of each unit, LongTensor (units, inputs of a unit).
        damping: Fraction of the mean diagonal of each Gram matrix that is added to the diagonal.
        at_once: Inputs removed in a step, at least; several units of one input each go together then.
        name: The units, for messages.

    Returns:
        Costs, float64 (units,), rising in the order of the removal.

    Raises:
        UserError: see :func:`damped_factor`.

    Source: Hassibi & Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993;
    greedily for groups as in Ling et al., "SlimGPT", arXiv 2412.18110.
    """
    left = []
    for weights, gram, columns in readers:
        factor = damped_factor(gram.double(), damping, name, of_inverse=True)
        weights = weights.to(torch.float64, copy=True)
        weights[:, gram.diagonal() == 0] = 0  # what is always zero costs nothing
        left.append((weights, factor.T @ factor, columns.to(gram.device)))
    device, units = left[0][1].device, len(left[0][2])
    alive = torch.ones(units, dtype=torch.bool, device=device)
    costs = torch.zeros(units, dtype=torch.float64, device=device)
    last = torch.zeros((), dtype=torch.float64, device=device)
    step = max(1, at_once // max(columns.shape[1] for _, _, columns in left))
    while bool(alive.any()):
        there = alive.nonzero().flatten()
        found = torch.zeros(len(there), dtype=torch.float64, device=device)
        for weights, inverse, columns in left:
            own = columns[there]
            block = inverse[own[:, :, None], own[:, None, :]]
            mine = weights[:, own].permute(1, 2, 0)  # (units, inputs of a unit, outputs)
            found += (mine * torch.linalg.solve(block, mine)).sum((1, 2))
        lowest, order = found.topk(min(step, len(there)), largest=False)
        gone = there[order]
        # At least as much as those before, and more: equal ones would go in another order.
        rising = torch.cummax(torch.cat([last[None], lowest.clamp_min(0)]), 0).values[1:]
        steps = torch.arange(1, len(gone) + 1, dtype=torch.float64, device=device)
        costs[gone] = rising * (1 + RISE * steps) + torch.finfo(torch.float64).tiny * steps
        last = costs[gone].max()
        alive[gone] = False
        for weights, inverse, columns in left:
            b = columns[gone].flatten()
            share = torch.linalg.solve(inverse[b[:, None], b], inverse[b])
            weights -= weights[:, b] @ share
            inverse -= inverse[:, b] @ share
            weights[:, b] = 0
            inverse[b] = 0
            inverse[:, b] = 0
            inverse[b, b] = 1
    return costs.cpu()
