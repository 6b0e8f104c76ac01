"""Losses of the points of matched map elements."""

import torch.nn.functional as F
from mmdet.models.losses.utils import weight_reduce_loss
from mmengine.registry import MODELS
from torch import Tensor, nn


def direction_cosine_distance(pred: Tensor, target: Tensor) -> Tensor:
    """``1 - cos`` of the angle between vectors ``(..., 2)``; 1 where one of them has no length."""
    cosine_loss = F.cosine_embedding_loss(
        pred.flatten(0, -2),
        target.flatten(0, -2),
        target.new_ones(target.shape[:-1].numel()),
        reduction='none',
    )
    return cosine_loss.view(pred.shape[:-1])


class _PointsLoss(nn.Module):
    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def _reduce(self, loss: Tensor, weight: Tensor | None, avg_factor: float | Tensor | None):
        return self.loss_weight * weight_reduce_loss(loss, weight, avg_factor=avg_factor)


@MODELS.register_module()
class PtsL1Loss(_PointsLoss):
    """L1 distance of points, both normalised.

    Args:
        loss_weight: Factor of the loss.

    Example::

        loss_map_pts=dict(type='PtsL1Loss', loss_weight=0.4)
    """

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Tensor:
        """Sum over points ``(n, points, 2)`` and their weights, divided by ``avg_factor``."""
        return self._reduce((pred - target).abs(), weight, avg_factor)


@MODELS.register_module()
class PtsDirCosLoss(_PointsLoss):
    """How far the segments of predicted lines point away from those of the true lines.

    Args:
        loss_weight: Factor of the loss.

    Example::

        loss_map_dir=dict(type='PtsDirCosLoss', loss_weight=0.005)
    """

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Tensor:
        """Sum over segments ``(n, segments, 2)`` in metres, divided by ``avg_factor``."""
        return self._reduce(direction_cosine_distance(pred, target), weight, avg_factor)
