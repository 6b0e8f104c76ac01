"""What agents, lanes and the ego see of each other."""

import torch
from torch import Tensor

#: A logit whose score is zero.
SILENT = -1e4


def nearest_to_corner(lines: Tensor) -> Tensor:
    """Of each line ``(B, lines, points, 2)`` the point nearest to (0, 0), ``(B, lines, 2)``.

    Positions are in [0, 1], so that is a corner of the BEV and not the ego; published weights are
    trained with it.
    """
    nearest = lines.square().sum(-1).sqrt().argmin(-1)
    index = nearest[..., None, None].expand(*nearest.shape, 1, 2)
    return lines.gather(2, index).squeeze(2)


def unsure(logits: Tensor, threshold: float) -> Tensor:
    """Queries ``(B, Q)`` whose best class ``(B, Q, classes)`` doesn't exceed a score."""
    return ~(logits.float().sigmoid().amax(-1) > threshold)


def out_of_reach(positions: Tensor, targets: Tensor, distance: float) -> Tensor:
    """Which targets ``(B, K, 2)`` are farther than ``distance`` from ``(B, Q, 2)``: ``(B, Q, K)``."""
    offset = targets[:, None] - positions[:, :, None]
    return ~(offset.square().sum(-1).sqrt() <= distance)


def hidden_queries(flags: Tensor | None) -> Tensor | None:
    """Which queries a masked model hides, bool ``(1, Q)``; None where there are no flags."""
    return None if flags is None else (flags < 0.5)[None]


def silenced(logits: Tensor, hidden: Tensor | None) -> Tensor:
    """Logits ``(..., Q, classes)`` of queries that are hidden turned so low that none is chosen."""
    return logits if hidden is None else logits.masked_fill(hidden[..., None], SILENT)


def pad_last(x: Tensor, value: float | bool) -> Tensor:
    """One more entry along dimension 1 of ``(B, n, ...)``, filled with ``value``."""
    return torch.cat([x, x.new_full((len(x), 1, *x.shape[2:]), value)], 1)
