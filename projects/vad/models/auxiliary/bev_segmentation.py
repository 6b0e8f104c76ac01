"""Which parts of the BEV are covered by agents and lines: a dense loss for the encoder."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import MODELS
from torch import Tensor, nn

from projects.vad.structures import corners

#: Digits behind the point that OpenCV's corners have, in bits.
SHIFT = 4


@MODELS.register_module()
class BEVSegmentation(nn.Module):
    """Classify fine cells of the BEV; trained with the model, left out of its checkpoints.

    Set prediction gives a BEV encoder few gradients as long as queries find nothing. A map of what
    stands where gives every cell one (as in Lift, Splat, Shoot, https://arxiv.org/abs/2008.05711).
    The loss is the focal loss (https://arxiv.org/abs/1708.02002), for each layer of the map divided
    by the area that is covered.

    Args:
        pc_range: x, y, z minima, then maxima, in metres.
        bev_h: Cells of the BEV along y.
        bev_w: Cells of the BEV along x.
        embed_dims: Width of the BEV.
        agents: For each layer of agents the labels it shows.
        lines: For each layer of map lines the labels it shows.
        scale: Fine cells per cell, along each side.
        loss_weight: Of the loss.
        alpha: Weight of covered cells in the focal loss; uncovered ones weigh ``1 - alpha``.
        gamma: Exponent of the focal loss.

    Example::

        auxiliary=[dict(type='BEVSegmentation', pc_range=point_cloud_range, bev_h=40, bev_w=20,
                        embed_dims=96, agents=[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])]
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        bev_h: int,
        bev_w: int,
        embed_dims: int,
        agents: Sequence[Sequence[int]],
        lines: Sequence[Sequence[int]] = ((0,), (1,), (2,)),
        scale: int = 3,
        loss_weight: float = 1.0,
        alpha: float = 0.5,
        gamma: float = 2.0,
    ):
        super().__init__()
        self.low, self.high = np.array(pc_range[:2]), np.array(pc_range[3:5])
        self.shape = (bev_h, bev_w)
        self.agents, self.lines = [list(x) for x in agents], [list(x) for x in lines]
        self.scale = scale
        self.loss_weight, self.alpha, self.gamma = loss_weight, alpha, gamma
        self.classify = nn.Linear(embed_dims, self.layers * scale * scale)
        nn.init.constant_(self.classify.bias, -3.0)  # most cells are empty

    @property
    def layers(self) -> int:
        """Layers of the map."""
        return len(self.agents) + len(self.lines)

    def forward(
        self, bev: Tensor, data_samples: Sequence[Det3DDataSample], head: nn.Module | None = None
    ) -> dict[str, Tensor]:
        """The loss ``loss_bev_segmentation``, a scalar.

        Args:
            bev: ``(B, bev_h * bev_w, embed_dims)``.
            data_samples: With ``gt_instances_3d`` and ``gt_map``.
            head: Not needed.
        """
        logits = self.fine(self.classify(bev)).float()
        covered = np.stack([self.truth(sample) for sample in data_samples])
        target = torch.from_numpy(covered).to(logits)
        return dict(loss_bev_segmentation=self.loss_weight * self.focal(logits, target))

    def fine(self, values: Tensor) -> Tensor:
        """``(B, h * w, layers * scale**2)`` as ``(B, layers, h * scale, w * scale)``."""
        grid = values.transpose(1, 2).unflatten(2, self.shape)
        return nn.functional.pixel_shuffle(grid, self.scale)

    def focal(self, logits: Tensor, target: Tensor) -> Tensor:
        """The focal loss of ``(B, layers, h, w)``: per layer divided by its covered area."""
        chance = logits.sigmoid()
        missed = chance + target - 2 * chance * target
        weight = self.alpha * target + (1 - self.alpha) * (1 - target)
        each = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction='none')
        sums = (weight * missed**self.gamma * each).sum((0, 2, 3))
        return (sums / target.sum((0, 2, 3)).clamp(min=1)).mean()

    def truth(self, sample: Det3DDataSample) -> np.ndarray:
        """Covered cells of one sample, ``(layers, h * scale, w * scale)`` uint8."""
        height, width = (n * self.scale for n in self.shape)
        found, elements = sample.gt_instances_3d, sample.gt_map
        footprints = corners(found.bboxes_3d.cpu().double())[:, :4, :2].numpy()
        canvas = np.zeros((self.layers, height, width), np.uint8)
        for layer, labels in zip(canvas, self.agents, strict=False):
            for index in np.flatnonzero(np.isin(found.labels_3d.cpu().numpy(), labels)):
                cv2.fillConvexPoly(layer, self.cells(footprints[index]), 1, cv2.LINE_8, SHIFT)
        points = np.asarray(elements.shifted_pts[:, 0].cpu(), np.float64)
        for layer, labels in zip(canvas[len(self.agents) :], self.lines, strict=True):
            for index in np.flatnonzero(np.isin(elements.labels.cpu().numpy(), labels)):
                line = [self.cells(points[index])]
                cv2.polylines(layer, line, False, 1, 1, cv2.LINE_8, SHIFT)
        return canvas

    def cells(self, metres: np.ndarray) -> np.ndarray:
        """Fine cells of points ``(n, 2)``, as OpenCV takes them with ``SHIFT``."""
        size = np.array(self.shape[::-1]) * self.scale
        places = (metres - self.low) / (self.high - self.low) * size - 0.5
        return np.round(places * (1 << SHIFT)).astype(np.int32)
