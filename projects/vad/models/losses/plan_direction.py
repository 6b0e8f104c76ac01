"""Keep the planned path along the lane."""

import math

import torch
from mmengine.registry import MODELS
from torch import Tensor

from .plan_lines import PlanLineLoss
from .polylines import distances, line_at, point_at

# A path whose first and last step are closer than this many metres stands still.
STATIC = 1.0


def line_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle in [0, pi / 2] between undirected lines at angles ``a`` and ``b``, all in radians."""
    difference = a - b
    return (difference - math.pi * torch.round(difference / math.pi)).abs()


def heading(vectors: Tensor) -> Tensor:
    """Angles of vectors ``(..., 2)``, anticlockwise from +x."""
    return torch.atan2(vectors[..., 1], vectors[..., 0])


def plan_map_direction_loss(offsets: Tensor, lines: Tensor, dis_thresh: float = 2.0) -> Tensor:
    """Angle between each step and the nearest line, ``(B, T)`` radians in [0, pi / 2].

    The heading at a step is that of the way to the next one (at the last, from the one before); the
    line's is taken at its point nearest to the step. 0 where that point is farther than
    ``dis_thresh``, and for a path that stands still.

    Args:
        offsets: Planned offsets per step ``(B, T, 2)``.
        lines: Lane dividers ``(B, V, P, 2)``; far away where there is none.
        dis_thresh: Metres.
    """
    path = offsets.cumsum(dim=-2)
    with torch.no_grad():
        distance = distances(path, lines)
        nearest = distance.min(dim=-1).values.argmin(dim=-1)
        of_line = nearest[..., None, None].expand(-1, -1, 1, lines.shape[2])
        close, point = distance.gather(2, of_line).squeeze(2).min(dim=-1)
        last = lines.shape[2] - 1
        following = torch.where(point == last, last - 1, point + 1)
        static = torch.linalg.norm(path[:, -1] - path[:, 0], dim=-1) < STATIC
        ignored = (close > dis_thresh) | static[:, None]
    line = line_at(lines, nearest)
    steps = path.diff(dim=1)
    path_angle = heading(torch.cat([steps, steps[:, -1:]], dim=1))
    lane_angle = heading(point_at(line, following) - point_at(line, point))
    return line_angle(path_angle, lane_angle).masked_fill(ignored, 0.0)


@MODELS.register_module()
class PlanMapDirectionLoss(PlanLineLoss):
    """Loss of planned paths that do not run along the predicted lane divider nearest to them.

    Args:
        loss_weight: Factor of the loss.
        map_thresh: Lines count from this probability on.
        dis_thresh: Distance in metres beyond which there is no loss.
        lane_div_cls_idx: Map class of lane dividers.

    Source: Jiang et al., "VAD: Vectorized Scene Representation for Efficient Autonomous Driving".

    Example::

        loss_plan_dir=dict(type='PlanMapDirectionLoss', loss_weight=0.5)
    """

    per_step = staticmethod(plan_map_direction_loss)

    def __init__(
        self,
        loss_weight: float = 1.0,
        map_thresh: float = 0.5,
        dis_thresh: float = 2.0,
        lane_div_cls_idx: int = 0,
    ) -> None:
        super().__init__(loss_weight, map_thresh, lane_div_cls_idx, dis_thresh)
