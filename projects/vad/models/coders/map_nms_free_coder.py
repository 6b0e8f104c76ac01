"""Map elements: the best lines with the boxes round them."""

from collections.abc import Sequence

from mmengine.registry import TASK_UTILS
from torch import Tensor

from ..geometry import denormalize_map_boxes, denormalize_points
from .selection import above, best_pairs, check_limits, inside


@TASK_UTILS.register_module()
class MapNMSFreeCoder:
    """Turn the last map decoder layer's lines into metres.

    Args:
        pc_range: Perception range ``x0, y0, z0, x1, y1, z1`` in metres.
        post_center_range: Lines whose box ``x0, y0, x1, y1`` is outside are dropped: four lower
            bounds, then four upper ones, in metres.
        max_num: At most this many lines a frame.
        num_classes: Number of map classes of the head.
        score_threshold: Lines with a score up to this are dropped; None keeps all.

    Example::

        map_bbox_coder=dict(type='MapNMSFreeCoder', pc_range=point_cloud_range, max_num=50,
                            post_center_range=[-20, -35, -20, -35, 20, 35, 20, 35], num_classes=3)
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        post_center_range: Sequence[float],
        max_num: int = 50,
        num_classes: int = 3,
        score_threshold: float | None = None,
    ) -> None:
        self.pc_range = check_limits('pc_range', pc_range, 3)
        self.post_center_range = check_limits('post_center_range', post_center_range, 4)
        self.max_num = max_num
        self.num_classes = num_classes
        self.score_threshold = score_threshold

    def decode(self, preds: dict) -> list[dict[str, Tensor]]:
        """Decode the head's output: one dict for each sample of the batch, best line first.

        Args:
            preds: ``map_all_cls_scores (L, B, V, C)`` logits, ``map_all_bbox_preds (L, B, V, 4)``
                and ``map_all_pts_preds (L, B, V, points, 2)`` as fractions of the range.

        Returns:
            ``bboxes (k, 4)`` as ``x0, y0, x1, y1`` in metres, ``scores (k,)``, ``labels (k,)``,
            ``pts (k, points, 2)`` in metres.
        """
        keys = ('map_all_cls_scores', 'map_all_bbox_preds', 'map_all_pts_preds')
        last = (preds[key][-1] for key in keys)
        return [
            self._decode_sample(*(x.float() for x in sample)) for sample in zip(*last, strict=True)
        ]

    def _decode_sample(self, logits: Tensor, boxes: Tensor, points: Tensor) -> dict[str, Tensor]:
        scores, labels, query = best_pairs(logits, self.max_num)
        boxes = denormalize_map_boxes(boxes[query], self.pc_range)
        keep = inside(boxes, self.post_center_range) & above(scores, self.score_threshold)
        return dict(
            bboxes=boxes[keep],
            scores=scores[keep],
            labels=labels[keep],
            pts=denormalize_points(points[query[keep]], self.pc_range),
        )
