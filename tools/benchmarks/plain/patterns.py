"""N:M patterns."""

import torch
from torch import Tensor


def smallest_of_each(scores: Tensor, kept: int, of: int) -> Tensor:
    """True for all but the ``kept`` largest of every ``of`` consecutive scores in a row.

    Args:
        scores: (out, in), ``in`` a multiple of ``of``.
        kept: N.
        of: M.
    """
    groups = scores.reshape(-1, of)
    gone = torch.zeros_like(groups, dtype=torch.bool)
    gone.scatter_(1, groups.topk(of - kept, dim=1, largest=False).indices, True)
    return gone.view(scores.shape)
