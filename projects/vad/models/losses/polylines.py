"""What the planning losses share: the planned path beside predicted lines.

Paths are ``(B, T, 2)``, lines ``(B, V, P, 2)``, both in metres in the LiDAR frame.
"""

import torch
from torch import Tensor

# Where a line or an agent goes that does not count: farther than any threshold.
FAR = 1e6


def only_class(lines: Tensor, scores: Tensor, index: int, threshold: float) -> Tensor:
    """The lines, with those far away whose score for class ``index`` is below the threshold.

    Args:
        lines: ``(B, V, P, 2)``.
        scores: Probabilities ``(B, V, C)``.
    """
    drop = scores[..., index] < threshold
    return lines.masked_fill(drop[..., None, None], FAR)


def distances(path: Tensor, lines: Tensor) -> Tensor:
    """Distance ``(B, T, V, P)`` of every step of the path to every point."""
    return torch.linalg.norm(path[:, :, None, None] - lines[:, None], dim=-1)


def line_at(lines: Tensor, index: Tensor) -> Tensor:
    """For every step the line ``(B, T, P, 2)`` that ``index (B, T)`` names."""
    return lines[torch.arange(len(lines), device=lines.device)[:, None], index]


def point_at(lines: Tensor, index: Tensor) -> Tensor:
    """The point ``(B, T, 2)`` that ``index (B, T)`` names in lines ``(B, T, P, 2)``."""
    return lines.gather(2, index[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)


def segments_cross(start: Tensor, end: Tensor, other_start: Tensor, other_end: Tensor) -> Tensor:
    """Whether segments ``(..., 2)`` have a point in common; parallel ones never do."""
    along, other, between = end - start, other_end - other_start, other_start - start
    area = _cross(along, other)
    parallel = area == 0
    area = area.masked_fill(parallel, 1.0)
    here, there = _cross(between, other) / area, _cross(between, along) / area
    return (here >= 0) & (here <= 1) & (there >= 0) & (there <= 1) & ~parallel


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
