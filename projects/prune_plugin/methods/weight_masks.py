"""Choosing the smallest scores under a pattern: pure functions on tensors."""

import re

import torch
from torch import Tensor

from ..common.errors import UserError


def keep_largest(scores: Tensor, ratio: float) -> Tensor:
    """Mask that drops exactly ``round(ratio * n)`` of the smallest of all scores.

    Args:
        scores: Any shape.
        ratio: Fraction removed, in [0, 1).

    Returns:
        Bool tensor like ``scores``, True where it stays.
    """
    flat = scores.flatten()
    drop = round(ratio * flat.numel())
    keep = torch.ones(flat.numel(), dtype=torch.bool, device=scores.device)
    keep[flat.topk(drop, largest=False, sorted=False).indices] = False
    return keep.view(scores.shape)


def keep_n_of_m(scores: Tensor, n: int, m: int, name: str) -> Tensor:
    """Mask that keeps the ``n`` largest of every ``m`` consecutive scores along the inputs.

    Args:
        scores: (out, in, ...); what follows the first dimension is taken as one row of inputs.
        n: Kept.
        m: Out of so many.
        name: The weight's name, for messages.

    Returns:
        Bool tensor like ``scores``.

    Raises:
        UserError: a row isn't a multiple of ``m`` long.
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
    """``'2:4'`` -> (2, 4), two of four kept; None stays None (unstructured).

    Raises:
        UserError: anything else, or not 0 < N < M.
    """
    if pattern is None:
        return None
    found = re.fullmatch(r'([0-9]{1,9}):([0-9]{1,9})', str(pattern))
    if not found or not 0 < int(found[1]) < int(found[2]):
        raise UserError(f"pattern is {pattern!r}; valid is 'N:M' with 0 < N < M, such as '2:4'")
    return int(found[1]), int(found[2])
