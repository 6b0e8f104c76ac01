"""Matching of agents."""

from collections.abc import Sequence

import torch
from mmengine.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from .hungarian import Matches, match


@TASK_UTILS.register_module()
class HungarianAssigner3D:
    """Match queries with true agents by class and box.

    Args:
        cls_cost: Config of the cost of classes, a match cost of MMDetection.
        reg_cost: Config of the cost of box codes.

    Example::

        assigner=dict(type='HungarianAssigner3D',
                      cls_cost=dict(type='mmdet.FocalLossCost', weight=0.8),
                      reg_cost=dict(type='BBox3DL1Cost', weight=0.1))
    """

    def __init__(self, cls_cost: dict, reg_cost: dict) -> None:
        self.cls_cost = TASK_UTILS.build(cls_cost)
        self.reg_cost = TASK_UTILS.build(reg_cost)

    @torch.no_grad()
    def assign(
        self, cls_scores: Tensor, bbox_preds: Tensor, gts: Sequence[InstanceData]
    ) -> Matches:
        """Match every decoder layer and sample by itself.

        Args:
            cls_scores: Logits ``(L, B, Q, C)``.
            bbox_preds: Box codes ``(L, B, Q, 10)``.
            gts: For each sample ``labels (n,)`` and the true boxes' codes as ``bboxes (n, 10)``.
        """
        return match(self.costs(cls_scores, bbox_preds, gts))

    @torch.no_grad()
    def costs(
        self, cls_scores: Tensor, bbox_preds: Tensor, gts: Sequence[InstanceData]
    ) -> list[Tensor]:
        """What each pair costs: for each sample ``(L, Q, n)``. Arguments as of :meth:`assign`."""
        return [self._cost(cls_scores[:, b], bbox_preds[:, b], gt) for b, gt in enumerate(gts)]

    def _cost(self, logits: Tensor, codes: Tensor, gt: InstanceData) -> Tensor:
        pred = InstanceData(scores=logits.flatten(0, 1), bboxes=codes.flatten(0, 1))
        return (self.cls_cost(pred, gt) + self.reg_cost(pred, gt)).view(*logits.shape[:2], len(gt))
