"""Matching of map elements."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmengine.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from .hungarian import Matches, match


@TASK_UTILS.register_module()
class MapHungarianAssigner3D:
    """Match queries with true map elements by class and points, in the order that fits best.

    The original also lists costs of the boxes, with weight 0; there are none here.

    Args:
        cls_cost: Config of the cost of classes, a match cost of MMDetection.
        pts_cost: Config of the cost of points, one for each order.

    Example::

        assigner=dict(type='MapHungarianAssigner3D',
                      cls_cost=dict(type='mmdet.FocalLossCost', weight=0.8),
                      pts_cost=dict(type='OrderedPtsL1Cost', weight=0.4))
    """

    def __init__(self, cls_cost: dict, pts_cost: dict) -> None:
        self.cls_cost = TASK_UTILS.build(cls_cost)
        self.pts_cost = TASK_UTILS.build(pts_cost)

    @torch.no_grad()
    def assign(self, cls_scores: Tensor, pts_preds: Tensor, gts: Sequence[InstanceData]) -> Matches:
        """Match every decoder layer and sample by itself, with the best order of each pair.

        Args:
            cls_scores: Logits ``(L, B, V, C)``.
            pts_preds: Normalised points ``(L, B, V, points, 2)``.
            gts: For each sample ``labels (m,)`` and ``shifted_pts (m, orders, points, 2)``,
                normalised.
        """
        costs, orders = self.costs(cls_scores, pts_preds, gts)
        return with_orders(match(costs), orders)

    @torch.no_grad()
    def costs(
        self, cls_scores: Tensor, pts_preds: Tensor, gts: Sequence[InstanceData]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What each pair costs, and the order in which it does: for each sample ``(L, V, m)``.

        Arguments as of :meth:`assign`.
        """
        pairs = [self._cost(cls_scores[:, b], pts_preds[:, b], gt) for b, gt in enumerate(gts)]
        return [cost for cost, _ in pairs], [order for _, order in pairs]

    def _cost(self, logits: Tensor, points: Tensor, gt: InstanceData) -> tuple[Tensor, Tensor]:
        """Costs, and the orders that give them, both ``(L, V, m)``."""
        shape = (*logits.shape[:2], len(gt))
        pred = InstanceData(scores=logits.flatten(0, 1), pts=points.flatten(0, 1))
        pts_cost, order = self.pts_cost(pred, gt).min(dim=-1)
        return (self.cls_cost(pred, gt) + pts_cost).view(shape), order.view(shape)


def with_orders(matches: Matches, orders: Sequence[Tensor]) -> Matches:
    """The matches with each pair's best order, of those that ``costs`` returned."""
    layer = torch.arange(len(matches.query), device=matches.query.device)[:, None]
    order = torch.cat(list(orders), dim=-1)[layer, matches.query, matches.gt]
    return replace(matches, order=order)
