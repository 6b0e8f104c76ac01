"""SparseGPT: Frantar & Alistarh, arXiv 2301.00774, algorithm 1."""

import torch
from torch import Tensor, nn


class SparseGPT:
    """One layer's Hessian, and the solver on it.

    Args:
        layer: The layer; its weight is changed in place.
        block_size: Columns whose mask is chosen together, and after which the rest is updated.
        damp: Added to the Hessian's diagonal, as a fraction of its mean.
    """

    def __init__(self, layer: nn.Linear, block_size: int = 128, damp: float = 0.01):
        self.layer, self.block_size, self.damp = layer, block_size, damp
        width = layer.in_features
        self.hessian = torch.zeros(width, width)

    def add(self, inputs: Tensor) -> None:
        """Add the products of the inputs, (..., in), to the Hessian; its scale doesn't matter."""
        rows = inputs.flatten(0, -2).float()
        self.hessian += rows.T @ rows

    def prune(self, ratio: float, pattern: tuple[int, int] | None = None) -> None:
        """Choose and remove weights block by block, spreading each error over what comes later."""
        weight = self.layer.weight.data.float().clone()
        weight[:, self.hessian.diag() == 0] = 0
        factor = inverse_factor(self.hessian, self.damp)
        del self.hessian
        width = weight.shape[1]
        for start in range(0, width, self.block_size):
            end = min(start + self.block_size, width)
            inner = factor[start:end, start:end]
            block, errors = prune_block(weight[:, start:end], inner, ratio, pattern)
            weight[:, start:end] = block
            weight[:, end:] -= errors @ factor[start:end, end:]
        self.layer.weight.data.copy_(weight)


def inverse_factor(hessian: Tensor, damp: float) -> Tensor:
    """Upper triangle U with ``U.T @ U`` the inverse of the damped Hessian.

    Row j of U, over its diagonal, is what the weights after j take over from weight j once those
    before it are settled.
    """
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += damp * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)


def prune_block(
    weight: Tensor, factor: Tensor, ratio: float, pattern: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Prune some columns of a layer.

    Args:
        weight: (out, columns), as updated by the blocks before.
        factor: (columns, columns), their part of :func:`inverse_factor`.
        ratio: Fraction removed, over all rows of the block together.
        pattern: (N, M) or None.

    Returns:
        The new weights, and each one's error over the factor's diagonal, both (out, columns).
    """
    weight, errors = weight.clone(), torch.zeros_like(weight)
    diagonal = factor.diag()
    gone = torch.zeros_like(weight, dtype=torch.bool)
    if pattern is None:
        order = (weight / diagonal).square().flatten().argsort()
        gone.view(-1)[order[: round(ratio * len(order))]] = True
    for j in range(weight.shape[1]):
        if pattern is not None and j % pattern[1] == 0:
            kept, of = pattern
            saliency = (weight[:, j : j + of] / diagonal[j : j + of]).square()
            worst = saliency.topk(of - kept, dim=1, largest=False).indices
            gone[:, j : j + of].scatter_(1, worst, True)
        column = weight[:, j].clone()
        left = column.masked_fill(gone[:, j], 0)
        error = (column - left) / factor[j, j]
        weight[:, j:] -= error[:, None] * factor[j, j:]
        weight[:, j] = left
        errors[:, j] = error
    return weight, errors
