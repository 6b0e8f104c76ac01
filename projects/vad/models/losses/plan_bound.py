"""Keep the planned path away from the edge of the road."""

import torch
from mmengine.registry import MODELS
from torch import Tensor

from .plan_lines import PlanLineLoss
from .polylines import distances, line_at, segments_cross


def plan_map_bound_loss(offsets: Tensor, lines: Tensor, dis_thresh: float = 1.0) -> Tensor:
    """How much closer than ``dis_thresh`` each step comes to a point of a line, ``(B, T)`` metres.

    From the first step on that crosses its nearest line the loss is 0: the path has left the road,
    and pushing it away from the edge would push it further out.

    Args:
        offsets: Planned offsets per step ``(B, T, 2)``.
        lines: Road edges ``(B, V, P, 2)``; far away where there is none.
        dis_thresh: Metres.
    """
    path = offsets.cumsum(dim=-2)
    per_line = distances(path, lines).min(dim=-1).values
    closest, nearest = per_line.min(dim=-1)
    with torch.no_grad():
        origin = path.new_zeros(len(path), 1, 2)
        start, end = torch.cat([origin, path[:, :-1]], dim=1)[:, :, None], path[:, :, None]
        line = line_at(lines, nearest)
        crosses = segments_cross(start, end, line[:, :, :-1], line[:, :, 1:]).any(dim=-1)
        outside = crosses.cumsum(dim=-1) > 0
    return (dis_thresh - closest).clamp(min=0).masked_fill(outside, 0.0)


@MODELS.register_module()
class PlanMapBoundLoss(PlanLineLoss):
    """Loss of planned paths that come close to a predicted road edge.

    Args:
        loss_weight: Factor of the loss.
        map_thresh: Lines count from this probability on.
        lane_bound_cls_idx: Map class of road edges.
        dis_thresh: Distance in metres below which there is a loss.

    Source: Jiang et al., "VAD: Vectorized Scene Representation for Efficient Autonomous Driving".

    Example::

        loss_plan_bound=dict(type='PlanMapBoundLoss', loss_weight=1.0, dis_thresh=1.0)
    """

    per_step = staticmethod(plan_map_bound_loss)

    def __init__(
        self,
        loss_weight: float = 1.0,
        map_thresh: float = 0.5,
        lane_bound_cls_idx: int = 2,
        dis_thresh: float = 1.0,
    ) -> None:
        super().__init__(loss_weight, map_thresh, lane_bound_cls_idx, dis_thresh)
