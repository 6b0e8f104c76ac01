"""Keep the planned path away from other vehicles."""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..on_device import constant
from .polylines import FAR


def plan_collision_loss(
    offsets: Tensor,
    agents: Tensor,
    valid: Tensor,
    x_dis_thresh: float = 1.5,
    y_dis_thresh: float = 3.0,
    dis_thresh: float = 3.0,
) -> Tensor:
    """How much closer each step comes to an agent than the thresholds, in x and in y: ``(B, T, 2)``.

    At each step the agents within ``dis_thresh`` count. The nearest in x and the nearest in y are
    looked for separately, so they may be two different ones.

    Args:
        offsets: Planned offsets per step ``(B, T, 2)``.
        agents: Where the agents will be, ``(B, A, T, 2)`` in metres.
        valid: Which agents count, ``(B, A)``.
        x_dis_thresh: Metres to the side.
        y_dis_thresh: Metres ahead and behind.
        dis_thresh: Metres.
    """
    path = offsets.cumsum(dim=-2)[:, None]
    far = torch.linalg.norm(path - agents, dim=-1) > dis_thresh
    agents = agents.masked_fill((far | ~valid[..., None])[..., None], FAR)
    closest = (path - agents).abs().min(dim=1).values
    return (constant((x_dis_thresh, y_dis_thresh), closest) - closest).clamp(min=0)


@MODELS.register_module()
class PlanCollisionLoss(nn.Module):
    """Loss of planned paths that come close to where vehicles are predicted to be.

    Predictions are not changed (the original project's loss writes into them).

    Args:
        loss_weight: Factor of the loss.
        agent_thresh: Agents count from this probability on.
        x_dis_thresh: Distance to the side in metres below which there is a loss.
        y_dis_thresh: The same, ahead and behind.
        num_vehicle_classes: The classes below this number are vehicles; others do not count.

    Source: Jiang et al., "VAD: Vectorized Scene Representation for Efficient Autonomous Driving".

    Example::

        loss_plan_col=dict(type='PlanCollisionLoss', loss_weight=1.0)
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        agent_thresh: float = 0.5,
        x_dis_thresh: float = 1.5,
        y_dis_thresh: float = 3.0,
        num_vehicle_classes: int = 5,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.agent_thresh = agent_thresh
        self.x_dis_thresh = x_dis_thresh
        self.y_dis_thresh = y_dis_thresh
        self.num_vehicle_classes = num_vehicle_classes

    def forward(
        self,
        offsets: Tensor,
        centers: Tensor,
        agent_offsets: Tensor,
        scores: Tensor,
        mode_scores: Tensor,
        weight: Tensor,
    ) -> Tensor:
        """Mean over all steps and both directions, steps with weight 0 included.

        Args:
            offsets: Planned offsets per step ``(B, T, 2)``, metres.
            centers: Where the agents are, ``(B, A, 2)``, metres.
            agent_offsets: Their predicted offsets per step, ``(B, A, modes, T, 2)``, metres.
            scores: Their probabilities ``(B, A, C)``.
            mode_scores: ``(B, A, modes)``; the best mode counts.
            weight: ``(B, T)``.
        """
        score, label = scores.max(dim=-1)
        valid = ~(score < self.agent_thresh) & (label < self.num_vehicle_classes)
        best = mode_scores.argmax(dim=-1)[..., None, None, None]
        best = best.expand(-1, -1, 1, *agent_offsets.shape[-2:])
        agents = centers[:, :, None] + agent_offsets.gather(2, best).squeeze(2).cumsum(dim=-2)
        loss = plan_collision_loss(offsets, agents, valid, self.x_dis_thresh, self.y_dis_thresh)
        return self.loss_weight * (loss * weight[..., None]).mean()
