"""Losses of agents: class, box and motion."""

from collections.abc import Sequence

import torch
from mmengine.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from projects.vad.structures import with_gravity_center

from ..assigners import Matches
from ..geometry import encode_boxes
from .matched import (
    average_factor,
    classification_loss,
    name_by_layer,
    weighted,
    with_loss_weight,
)


def best_modes(trajs: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    """The mode ``(n,)`` that ends closest to the truth; 0 where the truth's last step is missing.

    Args:
        trajs: Offsets per step ``(n, modes, T, 2)``.
        targets: Offsets per step ``(n, T, 2)``.
        masks: ``(n, T)``, 1 where there is a truth.
    """
    miss = torch.linalg.norm(trajs.sum(dim=-2) - targets.sum(dim=-2)[:, None], dim=-1)
    return (miss * masks[:, -1:]).argmin(dim=-1)


def codes_of(truth: InstanceData) -> Tensor:
    """The box codes ``(n, 10)`` of true agents."""
    return encode_boxes(with_gravity_center(truth.bboxes_3d.float()))


class DetectionLoss(nn.Module):
    """Match queries with true agents in every decoder layer, and compare.

    Motion is predicted once, so its loss is taken once, with the last layer's matches.

    Args:
        assigner: Config of the assigner; a cost without a weight gets that of its loss.
        loss_cls: Config of the classes' loss.
        loss_bbox: Config of the loss of box codes.
        loss_traj: Config of the loss of the best mode's offsets.
        loss_traj_cls: Config of the loss of the modes' scores.
    """

    def __init__(
        self, assigner: dict, loss_cls: dict, loss_bbox: dict, loss_traj: dict, loss_traj_cls: dict
    ) -> None:
        super().__init__()
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_traj = MODELS.build(loss_traj)
        self.loss_traj_cls = MODELS.build(loss_traj_cls)
        costs = dict(
            cls_cost=with_loss_weight(assigner['cls_cost'], self.loss_cls),
            reg_cost=with_loss_weight(assigner['reg_cost'], self.loss_bbox),
        )
        self.assigner = TASK_UTILS.build({**assigner, **costs})

    def costs(self, preds: dict, gts: Sequence[InstanceData]) -> list[Tensor]:
        """What each pair of a query and a truth costs; arguments as of :meth:`forward`."""
        truths = [InstanceData(bboxes=codes_of(gt), labels=gt.labels_3d) for gt in gts]
        return self.assigner.costs(preds['all_cls_scores'], preds['all_bbox_preds'], truths)

    def forward(
        self, preds: dict, gts: Sequence[InstanceData], code_weights: Tensor, matches: Matches
    ) -> dict[str, Tensor]:
        """Compute ``loss_cls``, ``loss_bbox``, ``loss_traj``, ``loss_traj_cls``, ``d0.loss_cls``...

        Args:
            preds: The head's output in float32: ``all_cls_scores``, ``all_bbox_preds``,
                ``all_traj_preds``, ``all_traj_cls_scores``.
            gts: For each sample ``bboxes_3d (n, 9)``, ``labels_3d (n,)``, ``attr_labels (n, 34)``.
            code_weights: Weights ``(10,)`` of the box code.
            matches: The pairs, by :meth:`costs`.
        """
        losses, valid, avg_factor = self._boxes(preds, gts, code_weights, matches)
        attributes = torch.cat([gt.attr_labels for gt in gts]).float()[matches.gt[-1]]
        losses |= self._motion(preds, matches, attributes, valid[-1], avg_factor)
        return name_by_layer(losses)

    def boxes(
        self, preds: dict, gts: Sequence[InstanceData], code_weights: Tensor, matches: Matches
    ) -> dict[str, Tensor]:
        """The losses of :meth:`forward` that need no motion: of classes and boxes."""
        return name_by_layer(self._boxes(preds, gts, code_weights, matches)[0])

    def _boxes(
        self, preds: dict, gts: Sequence[InstanceData], code_weights: Tensor, matches: Matches
    ) -> tuple[dict[str, list[Tensor]], Tensor, Tensor]:
        """Losses by layer, which pairs ``(L, P, 1)`` have a usable box, and the number of pairs."""
        labels = [gt.labels_3d for gt in gts]
        scores, codes = preds['all_cls_scores'], preds['all_bbox_preds']
        avg_factor = average_factor(matches)

        targets = torch.cat([codes_of(gt) for gt in gts])[matches.gt]
        valid = torch.isfinite(targets).all(dim=-1, keepdim=True)
        weights = code_weights * valid
        pairs = zip(matches.pick(codes), targets.masked_fill(~valid, 0.0), weights, strict=True)
        losses = dict(
            loss_cls=classification_loss(
                self.loss_cls, scores, torch.cat(labels), matches, avg_factor
            ),
            loss_bbox=[weighted(self.loss_bbox, p, t, w, avg_factor) for p, t, w in pairs],
        )
        return losses, valid, avg_factor

    def _motion(
        self, preds: dict, matches: Matches, attributes: Tensor, valid: Tensor, avg_factor: Tensor
    ) -> dict[str, list[Tensor]]:
        """Losses of the last layer's matched agents.

        Args:
            preds: See :meth:`forward`.
            matches: The matches, of which the last layer's count.
            attributes: Those agents' attributes ``(P, 34)``.
            valid: Which of them have a usable box, ``(P, 1)``.
            avg_factor: Their number.
        """
        trajs, scores = preds['all_traj_preds'][-1], preds['all_traj_cls_scores'][-1]
        trajs = trajs.unflatten(-1, (-1, 2))
        steps = trajs.shape[-2]
        targets = attributes[:, : 2 * steps].unflatten(-1, (-1, 2))
        masks = attributes[:, 2 * steps : 3 * steps]
        matched = trajs[matches.batch[-1], matches.query[-1]]
        with torch.no_grad():
            best = best_modes(matched, targets, masks)
            modes = best.new_full(scores.shape[:2], scores.shape[2])
            modes[matches.batch[-1], matches.query[-1]] = best
        chosen = matched[torch.arange(len(best), device=best.device), best]
        weight = (masks * valid)[..., None].expand_as(targets)
        return dict(
            loss_traj=[weighted(self.loss_traj, chosen, targets, weight, avg_factor)],
            loss_traj_cls=[
                self.loss_traj_cls(scores.flatten(0, 1), modes.flatten(), avg_factor=avg_factor)
            ],
        )
