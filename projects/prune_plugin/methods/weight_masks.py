"""Weight masks from scores, unstructured or N:M: pure functions on tensors."""

import re

import torch
from torch import Tensor

from ..common.errors import UserError


def keep_largest(scores: Tensor, ratio: float) -> Tensor:
    """Mask that removes exactly the ``round(ratio * n)`` smallest of n scores.

    Args:
        scores: Any shape.
        ratio: Fraction removed, in [0, 1).

    Returns:
        Bool tensor shaped as ``scores``, True where kept.
    """
    flat = scores.flatten()
    count = round(ratio * flat.numel())
    keep = torch.ones(flat.numel(), dtype=torch.bool, device=scores.device)
    keep[flat.topk(count, largest=False, sorted=False).indices] = False
    return keep.view(scores.shape)


def keep_n_of_m(scores: Tensor, n: int, m: int, name: str) -> Tensor:
    """Mask that keeps the ``n`` largest of every ``m`` consecutive scores along the inputs.

    Args:
        scores: (out, in, ...); all dimensions but the first are flattened into one row of inputs.
        n: Number kept of every ``m``.
        m: Size of a block.
        name: The weight's name, for messages.

    Returns:
        Bool tensor shaped as ``scores``, True where kept.

    Raises:
        UserError: ``m`` doesn't divide the length of a row.
    """
    rows = scores.flatten(1)
    if rows.shape[1] % m:
        raise UserError(
            f'prune_cfg.sparsifier: pattern {n}:{m} does not divide {name}, whose rows hold '
            f'{rows.shape[1]} weights; exclude it or use another pattern'
        )
    blocks = rows.reshape(-1, m)
    keep = torch.zeros_like(blocks, dtype=torch.bool)
    keep.scatter_(1, blocks.topk(n, dim=1).indices, True)
    return keep.view(scores.shape)


def parse_pattern(pattern: str | None) -> tuple[int, int] | None:
    """Parse an N:M pattern: ``'2:4'`` (two of four kept) gives (2, 4), None (unstructured) gives None.

    Raises:
        UserError: not of the form N:M, or not 0 < N < M.
    """
    if pattern is None:
        return None
    match = re.fullmatch(r'([0-9]{1,9}):([0-9]{1,9})', str(pattern))
    if not match or not 0 < int(match[1]) < int(match[2]):
        raise UserError(f"pattern is {pattern!r}; valid is 'N:M' with 0 < N < M, such as '2:4'")
    return int(match[1]), int(match[2])
