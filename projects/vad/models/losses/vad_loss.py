"""All of VAD's losses, under the names that the original project logs."""

from collections.abc import Sequence

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..assigners import match_all, with_orders
from ..geometry import denormalize_points
from .detection import DetectionLoss
from .map import MapLoss
from .planning import PlanningLoss

#: How the losses of each task begin; all others are detection's.
TASKS = dict(
    loss_map='map',
    loss_plan='planning',
    loss_traj='motion',
    loss_bev_segmentation='auxiliary',
    loss_group='auxiliary',
)


@MODELS.register_module()
class VADLoss(nn.Module):
    """Losses of detection, motion, map and planning from the head's output and the truth.

    Has no parameters and does not change the predictions. Everything is computed in float32. Every
    loss depends on the predictions, also where a sample has no truth, so that all processes of a
    distributed training see a gradient for the same parameters.

    Args:
        pc_range: Perception range ``x0, y0, z0, x1, y1, z1`` in metres.
        detection: Arguments of :class:`DetectionLoss`: agents and their motion.
        map: Arguments of :class:`MapLoss`.
        planning: Arguments of :class:`PlanningLoss`.

    Example::

        loss=dict(type='VADLoss', pc_range=point_cloud_range, detection=dict(...), map=dict(...),
                  planning=dict(...))
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        detection: dict,
        map: dict,
        planning: dict,
    ) -> None:
        super().__init__()
        self.pc_range = pc_range
        self.detection = DetectionLoss(**detection)
        self.map = MapLoss(pc_range=pc_range, **map)
        self.planning = PlanningLoss(**planning)

    def forward(
        self,
        preds: dict,
        data_samples: Sequence[Det3DDataSample],
        code_weights: Tensor,
        map_code_weights: Tensor,
    ) -> dict[str, Tensor]:
        """Compute every loss, weighted: scalars, the last decoder layer's under plain names.

        Args:
            preds: The head's output, with L decoder layers: ``all_cls_scores (L, B, Q, C)`` logits,
                ``all_bbox_preds (L, B, Q, 10)`` codes, ``all_traj_preds (L, B, Q, modes, 2 * T)``,
                ``all_traj_cls_scores (L, B, Q, modes)`` logits, ``map_all_cls_scores (L, B, V, C)``
                logits, ``map_all_bbox_preds (L, B, V, 4)`` and ``map_all_pts_preds (L, B, V, P, 2)``
                normalised, ``ego_fut_preds (B, commands, T, 2)``.
            data_samples: Truths ``gt_instances_3d``, ``gt_map`` and ``gt_ego`` on the same device.
            code_weights: Weights ``(10,)`` of the numbers of a box code.
            map_code_weights: Weights ``(4,)`` of the numbers of a map element's box.
        """
        preds = {key: v.float() if torch.is_tensor(v) else v for key, v in preds.items()}
        agents = [sample.gt_instances_3d for sample in data_samples]
        elements = [sample.gt_map for sample in data_samples]
        costs, orders = self.map.costs(preds, elements)
        found, lines = match_all([self.detection.costs(preds, agents), costs])
        losses = self.detection(preds, agents, code_weights, found)
        losses |= self.map(preds, elements, map_code_weights, with_orders(lines, orders))
        return losses | self._planning(preds, [s.gt_ego for s in data_samples])

    def _planning(self, preds: dict, egos: Sequence) -> dict[str, Tensor]:
        def stacked(key: str) -> Tensor:
            return torch.stack([getattr(ego, key) for ego in egos]).float()

        return self.planning(
            preds['ego_fut_preds'],
            stacked('fut_trajs'),
            stacked('fut_masks'),
            stacked('fut_cmd'),
            denormalize_points(preds['map_all_pts_preds'][-1], self.pc_range),
            preds['map_all_cls_scores'][-1],
            (
                preds['all_bbox_preds'][-1][..., :2],
                preds['all_traj_preds'][-1].unflatten(-1, (-1, 2)),
                preds['all_cls_scores'][-1],
                preds['all_traj_cls_scores'][-1],
            ),
        )


def task_of(name: str) -> str:
    """The task that a loss belongs to, by the name it is logged under.

    One of ``detection``, ``motion``, ``map``, ``planning`` and, of helpers in training, ``auxiliary``.
    """
    name = name.rpartition('.')[2]
    return next((task for start, task in TASKS.items() if name.startswith(start)), 'detection')
