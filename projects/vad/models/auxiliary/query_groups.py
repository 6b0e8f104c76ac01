"""More groups of object queries in training, each matched with all true agents by itself."""

from collections.abc import Sequence

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..assigners import match_all


@MODELS.register_module()
class QueryGroups(nn.Module):
    """The object decoder again, on queries that start a little elsewhere; has no parameters.

    With one query per agent a decoder gets few positive examples. Several groups that don't see each
    other give it as many times more (Group DETR, https://arxiv.org/abs/2207.13085). Here a group is
    the head's own queries with their reference points moved at random, so that nothing is to be left
    out of the finished model. Classes and boxes count as much as the head's own; motion is not
    predicted.

    Args:
        groups: Groups beside the head's own.
        jitter: Standard deviation of what reference points are moved by, in metres.
        loss_weight: Of these losses.

    Example::

        auxiliary=[dict(type='QueryGroups', groups=3)]
    """

    def __init__(self, groups: int = 3, jitter: float = 2.0, loss_weight: float = 1.0):
        super().__init__()
        self.groups, self.jitter, self.loss_weight = groups, jitter, loss_weight

    def forward(
        self, bev: Tensor, data_samples: Sequence[Det3DDataSample], head: nn.Module
    ) -> dict[str, Tensor]:
        """The losses ``loss_group_cls``, ``loss_group_bbox``, ``d0.loss_group_cls``...

        Args:
            bev: ``(B, bev_h * bev_w, embed_dims)``.
            data_samples: With ``gt_instances_3d``.
            head: The :class:`VADHead` of the model.
        """
        preds = head.boxes(self.decoded(bev.repeat(self.groups, 1, 1), head))
        preds = {key: value.float() for key, value in preds.items()}
        agents = [sample.gt_instances_3d for sample in data_samples] * self.groups
        detection = head.loss.detection
        (matches,) = match_all([detection.costs(preds, agents)])
        losses = detection.boxes(preds, agents, head.code_weights, matches)
        return {
            name.replace('loss_', 'loss_group_'): self.loss_weight * loss
            for name, loss in losses.items()
        }

    def decoded(self, bev: Tensor, head: nn.Module):
        """What the head's decoder finds in BEVs ``(groups * B, h * w, embed_dims)``."""
        transformer = head.transformer
        embed = head.query_embedding.weight.expand(len(bev), -1, -1)
        position, query = embed.split(transformer.embed_dims, dim=-1)
        with torch.autocast(bev.device.type, enabled=False):
            start = transformer.reference_points(position).sigmoid()
        extent = start.new_tensor([*head.extent, float('inf')])  # heights stay
        start = (start + torch.randn_like(start) * self.jitter / extent).clamp(0.01, 0.99)
        return transformer.decoder(query, position, bev, start, head.shape, head.reg_branches)
