"""Agents: the best boxes with their motion."""

from collections.abc import Sequence

from mmengine.registry import TASK_UTILS
from torch import Tensor

from projects.vad.structures import with_bottom_center

from ..geometry import decode_boxes
from .selection import above, best_pairs, check_limits, inside


@TASK_UTILS.register_module()
class CustomNMSFreeCoder:
    """Turn the last decoder layer's agents into VAD boxes.

    Args:
        pc_range: Perception range ``x0, y0, z0, x1, y1, z1`` in metres; kept for who asks for it,
            the code itself is in metres.
        post_center_range: Boxes whose centre (at half height) is outside are dropped; metres.
        max_num: At most this many boxes a frame.
        num_classes: Number of classes of the head.
        score_threshold: Boxes with a score up to this are dropped; None keeps all.

    Example::

        bbox_coder=dict(type='CustomNMSFreeCoder', pc_range=point_cloud_range, max_num=100,
                        post_center_range=[-20, -35, -10, 20, 35, 10], num_classes=10)
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        post_center_range: Sequence[float],
        max_num: int = 100,
        num_classes: int = 10,
        score_threshold: float | None = None,
    ) -> None:
        self.pc_range = check_limits('pc_range', pc_range, 3)
        self.post_center_range = check_limits('post_center_range', post_center_range, 3)
        self.max_num = max_num
        self.num_classes = num_classes
        self.score_threshold = score_threshold

    def decode(self, preds: dict) -> list[dict[str, Tensor]]:
        """Decode the head's output: one dict for each sample of the batch, best box first.

        Args:
            preds: ``all_cls_scores (L, B, Q, C)`` logits, ``all_bbox_preds (L, B, Q, 10)`` codes,
                ``all_traj_preds (L, B, Q, modes, 2 * steps)`` offsets per step in metres,
                ``all_traj_cls_scores (L, B, Q, modes)`` logits.

        Returns:
            ``bboxes (k, 9)`` VAD boxes with z at the bottom, ``scores (k,)``, ``labels (k,)``,
            ``trajs (k, modes, 2 * steps)``, ``mode_scores (k, modes)`` logits.
        """
        names = ('all_cls_scores', 'all_bbox_preds', 'all_traj_preds', 'all_traj_cls_scores')
        last = (preds[name][-1] for name in names)
        return [
            self._decode_sample(*(x.float() for x in sample)) for sample in zip(*last, strict=True)
        ]

    def _decode_sample(
        self, logits: Tensor, codes: Tensor, trajs: Tensor, modes: Tensor
    ) -> dict[str, Tensor]:
        scores, labels, query = best_pairs(logits, self.max_num)
        boxes = decode_boxes(codes[query])
        keep = inside(boxes[:, :3], self.post_center_range) & above(scores, self.score_threshold)
        return dict(
            bboxes=with_bottom_center(boxes[keep]),
            scores=scores[keep],
            labels=labels[keep],
            trajs=trajs[query[keep]],
            mode_scores=modes[query[keep]],
        )
