"""Losses of the planned path: the driven one, road edges, vehicles, lane direction."""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .matched import weighted


class PlanningLoss(nn.Module):
    """Compare the paths with what was driven, and the commanded one with what is predicted around.

    Args:
        loss_plan_reg: Config of the L1 loss against the driven path.
        loss_plan_bound: Config of the loss of paths close to road edges.
        loss_plan_col: Config of the loss of paths close to vehicles.
        loss_plan_dir: Config of the loss of paths across the lane.
    """

    def __init__(
        self, loss_plan_reg: dict, loss_plan_bound: dict, loss_plan_col: dict, loss_plan_dir: dict
    ) -> None:
        super().__init__()
        self.loss_plan_reg = MODELS.build(loss_plan_reg)
        self.loss_plan_bound = MODELS.build(loss_plan_bound)
        self.loss_plan_col = MODELS.build(loss_plan_col)
        self.loss_plan_dir = MODELS.build(loss_plan_dir)

    def forward(
        self,
        paths: Tensor,
        driven: Tensor,
        mask: Tensor,
        command: Tensor,
        lines: Tensor,
        line_logits: Tensor,
        agents: tuple[Tensor, Tensor, Tensor, Tensor],
    ) -> dict[str, Tensor]:
        """Compute ``loss_plan_reg``, ``loss_plan_bound``, ``loss_plan_col``, ``loss_plan_dir``.

        All are means over all steps (and, for ``reg``, commands), those that don't count included.

        Args:
            paths: Offsets per step for each command, ``(B, commands, T, 2)``, metres.
            driven: True offsets per step ``(B, T, 2)``.
            mask: ``(B, T)``, 1 where there is a truth.
            command: One-hot ``(B, commands)``.
            lines: Predicted map elements ``(B, V, P, 2)``, metres.
            line_logits: Their class logits ``(B, V, C)``.
            agents: Predicted agents: centres ``(B, A, 2)`` and offsets per step
                ``(B, A, modes, T, 2)`` in metres, class logits ``(B, A, C)``, mode logits
                ``(B, A, modes)``.
        """
        driven = driven[:, None].expand_as(paths)
        weight = (command[:, :, None, None] * mask[:, None, :, None]).expand_as(paths)
        path = paths[torch.arange(len(paths), device=paths.device), command.argmax(dim=-1)]
        line_scores = line_logits.sigmoid()
        centers, offsets, logits, mode_logits = agents
        losses = dict(
            loss_plan_reg=weighted(self.loss_plan_reg, paths, driven, weight),
            loss_plan_bound=self.loss_plan_bound(path, lines, line_scores, mask),
            loss_plan_col=self.loss_plan_col(
                path, centers, offsets, logits.sigmoid(), mode_logits.sigmoid(), mask
            ),
            loss_plan_dir=self.loss_plan_dir(path, lines, line_scores, mask),
        )
        return {key: torch.nan_to_num(loss) for key, loss in losses.items()}
