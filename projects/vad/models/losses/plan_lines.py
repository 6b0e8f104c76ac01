"""What the losses of a planned path beside predicted lines of one class share."""

from collections.abc import Callable

from torch import Tensor, nn

from .polylines import only_class


class PlanLineLoss(nn.Module):
    """The mean over steps of :attr:`per_step`, taken with the lines of one class.

    Args:
        loss_weight: Factor of the loss.
        map_thresh: Lines count from this probability on.
        class_index: Map class of the lines.
        dis_thresh: Distance in metres that ``per_step`` goes by.
    """

    #: Loss ``(B, T)`` of offsets ``(B, T, 2)`` beside lines ``(B, V, P, 2)`` at a distance.
    per_step: Callable[[Tensor, Tensor, float], Tensor]

    def __init__(
        self, loss_weight: float, map_thresh: float, class_index: int, dis_thresh: float
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.map_thresh = map_thresh
        self.class_index = class_index
        self.dis_thresh = dis_thresh

    def forward(self, offsets: Tensor, lines: Tensor, scores: Tensor, weight: Tensor) -> Tensor:
        """Mean over all steps, those with weight 0 included.

        Args:
            offsets: Planned offsets per step ``(B, T, 2)``, metres.
            lines: All predicted lines ``(B, V, P, 2)``, metres.
            scores: Their probabilities ``(B, V, C)``.
            weight: ``(B, T)``.
        """
        own = only_class(lines, scores, self.class_index, self.map_thresh)
        return self.loss_weight * (self.per_step(offsets, own, self.dis_thresh) * weight).mean()
