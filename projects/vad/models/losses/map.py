"""Losses of map elements: class, points and their direction."""

from collections.abc import Sequence

import torch
from mmengine.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..assigners import Matches
from ..geometry import (
    denormalize_map_boxes,
    denormalize_points,
    normalize_map_boxes,
    normalize_points,
)
from .matched import (
    average_factor,
    classification_loss,
    name_by_layer,
    weighted,
    with_loss_weight,
)


class MapLoss(nn.Module):
    """Match queries with true map elements in every decoder layer, and compare.

    Args:
        pc_range: Perception range ``x0, y0, z0, x1, y1, z1`` in metres.
        assigner: Config of the assigner; a cost without a weight gets that of its loss.
        loss_map_cls: Config of the classes' loss.
        loss_map_pts: Config of the loss of points, normalised.
        loss_map_dir: Config of the loss of the segments' directions.
        loss_map_bbox: Config of the L1 loss of the boxes round the points, normalised; VAD gives it
            no weight. None reports a zero.
        loss_map_iou: The same, of the boxes' overlap in metres.
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        assigner: dict,
        loss_map_cls: dict,
        loss_map_pts: dict,
        loss_map_dir: dict,
        loss_map_bbox: dict | None = None,
        loss_map_iou: dict | None = None,
    ) -> None:
        super().__init__()
        self.pc_range = pc_range
        self.loss_map_cls = MODELS.build(loss_map_cls)
        self.loss_map_pts = MODELS.build(loss_map_pts)
        self.loss_map_dir = MODELS.build(loss_map_dir)
        self.loss_map_bbox = loss_map_bbox and MODELS.build(loss_map_bbox)
        self.loss_map_iou = loss_map_iou and MODELS.build(loss_map_iou)
        costs = dict(
            cls_cost=with_loss_weight(assigner['cls_cost'], self.loss_map_cls),
            pts_cost=with_loss_weight(assigner['pts_cost'], self.loss_map_pts),
        )
        self.assigner = TASK_UTILS.build({**assigner, **costs})

    def costs(self, preds: dict, gts: Sequence[InstanceData]) -> tuple[list[Tensor], list[Tensor]]:
        """What each pair of a query and a truth costs, and in which order of points.

        Arguments as of :meth:`forward`.
        """
        truths = [
            InstanceData(
                labels=gt.labels,
                shifted_pts=normalize_points(gt.shifted_pts.float(), self.pc_range),
            )
            for gt in gts
        ]
        return self.assigner.costs(preds['map_all_cls_scores'], preds['map_all_pts_preds'], truths)

    def forward(
        self, preds: dict, gts: Sequence[InstanceData], map_code_weights: Tensor, matches: Matches
    ) -> dict[str, Tensor]:
        """Compute ``loss_map_cls``, ``_bbox``, ``_iou``, ``_pts``, ``_dir``, ``d0.loss_map_cls``...

        Args:
            preds: The head's output in float32: ``map_all_cls_scores``, ``map_all_bbox_preds``,
                ``map_all_pts_preds``.
            gts: For each sample ``labels (m,)``, ``bboxes (m, 4)`` and
                ``shifted_pts (m, orders, points, 2)`` in metres.
            map_code_weights: Weights ``(4,)`` of the boxes' numbers.
            matches: The pairs and their orders, by :meth:`costs`.
        """
        scores, points = preds['map_all_cls_scores'], preds['map_all_pts_preds']
        labels, shifted = [gt.labels for gt in gts], [gt.shifted_pts.float() for gt in gts]
        avg_factor = average_factor(matches)

        boxes = torch.cat([gt.bboxes for gt in gts]).float()[matches.gt]
        lines = torch.cat(shifted)[matches.gt, matches.order]
        losses = dict(
            loss_map_cls=classification_loss(
                self.loss_map_cls, scores, torch.cat(labels), matches, avg_factor
            )
        )
        box_preds = matches.pick(preds['map_all_bbox_preds'])
        losses |= self._box_losses(box_preds, boxes, map_code_weights, avg_factor)
        losses |= self._point_losses(matches.pick(points), lines, avg_factor)
        return name_by_layer(losses)

    def _point_losses(self, pred: Tensor, target: Tensor, avg_factor: Tensor) -> dict:
        """Losses of matched points, ``(L, P, points, 2)``: predictions normalised, truths in metres."""
        segments = denormalize_points(pred, self.pc_range).diff(dim=-2), target.diff(dim=-2)
        pairs = zip(pred, normalize_points(target, self.pc_range), strict=True)
        return dict(
            loss_map_pts=[self.loss_map_pts(p, t, avg_factor=avg_factor) for p, t in pairs],
            loss_map_dir=[
                self.loss_map_dir(p, t, avg_factor=avg_factor)
                for p, t in zip(*segments, strict=True)
            ],
        )

    def _box_losses(
        self, pred: Tensor, target: Tensor, weights: Tensor, avg_factor: Tensor
    ) -> dict:
        """Losses of matched boxes, ``(L, P, 4)``: predictions normalised, truths in metres."""
        normalized = pred, normalize_map_boxes(target, self.pc_range)
        metres = denormalize_map_boxes(pred, self.pc_range), target
        losses = {}
        for key, loss, pair in (
            ('loss_map_bbox', self.loss_map_bbox, normalized),
            ('loss_map_iou', self.loss_map_iou, metres),
        ):
            losses[key] = [
                weighted(loss, p, t, weights.expand_as(p), avg_factor)
                if loss
                else p.abs().sum() * 0
                for p, t in zip(*pair, strict=True)
            ]
        return losses
