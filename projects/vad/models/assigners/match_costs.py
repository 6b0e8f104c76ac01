"""Costs of matching a prediction with a true agent or map element, in MMDetection's form."""

import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmengine.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class BBox3DL1Cost(BaseMatchCost):
    """L1 distance of the first eight numbers of box codes: all but the velocity.

    Example::

        reg_cost=dict(type='BBox3DL1Cost', weight=0.1)
    """

    num_codes = 8

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, *args, **kwargs
    ) -> Tensor:
        """Costs ``(predictions, truths)``; ``bboxes`` of both are codes ``(n, 10)``."""
        pred = pred_instances.bboxes[:, : self.num_codes]
        return torch.cdist(pred, gt_instances.bboxes[:, : self.num_codes], p=1) * self.weight


@TASK_UTILS.register_module()
class OrderedPtsL1Cost(BaseMatchCost):
    """L1 distance of all points of a line, for each order in which the true points may be given.

    Example::

        pts_cost=dict(type='OrderedPtsL1Cost', weight=0.4)
    """

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, *args, **kwargs
    ) -> Tensor:
        """Costs ``(predictions, truths, orders)``.

        Args:
            pred_instances: ``pts (n, points, 2)``, normalised.
            gt_instances: ``shifted_pts (m, orders, points, 2)``, normalised; rows that stand for no
                order are far outside.
        """
        orders = gt_instances.shifted_pts
        cost = torch.cdist(pred_instances.pts.flatten(1), orders.flatten(2).flatten(0, 1), p=1)
        return cost.view(len(cost), *orders.shape[:2]) * self.weight
