"""What both coders do: take the best pairs of query and class, keep those inside a range."""

from collections.abc import Sequence

import torch
from torch import Tensor

from projects.prune_plugin.common.errors import UserError


def best_pairs(logits: Tensor, max_num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores in [0, 1], labels and queries of the ``max_num`` best pairs, best first.

    Args:
        logits: ``(Q, C)``; a query may be taken once per class.
        max_num: How many pairs to take; all of them where there are fewer.
    """
    num_classes = logits.shape[-1]
    scores, index = logits.sigmoid().flatten().topk(min(max_num, logits.numel()))
    return scores, index % num_classes, index // num_classes


def inside(values: Tensor, limits: Sequence[float]) -> Tensor:
    """Which rows of ``(n, k)`` lie within ``limits``, k lower bounds and then k upper ones."""
    lower, upper = values.new_tensor(limits).chunk(2)
    return ((values >= lower) & (values <= upper)).all(dim=-1)


def check_limits(name: str, limits: Sequence[float], size: int) -> list[float]:
    """The limits as a list of ``2 * size`` numbers, or an error that names the key."""
    limits = [float(value) for value in limits]
    if len(limits) != 2 * size or any(a > b for a, b in zip(limits, limits[size:], strict=False)):
        raise UserError(
            f'{name} is {limits}; {size} lower bounds and {size} upper bounds would be valid'
        )
    return limits


def above(scores: Tensor, threshold: float | None) -> Tensor:
    """Which scores are larger than the threshold; all of them without one."""
    if threshold is None:
        return torch.ones_like(scores, dtype=torch.bool)
    return scores > threshold
