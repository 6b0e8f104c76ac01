"""Which objects of a frame are trained on and evaluated."""

import math
from collections.abc import Sequence

from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from torch import Tensor

from projects.prune_plugin.common.errors import UserError

OBJECT_KEYS = ('gt_bboxes_3d', 'gt_labels_3d', 'attr_labels')


@TRANSFORMS.register_module()
class CustomObjectRangeFilter(BaseTransform):
    """Keep objects whose centres lie within the range in x and y; yaws go to [-pi, pi).

    Frames without ground truth pass unchanged.

    Args:
        point_cloud_range: x, y, z minimum, then maximum, in metres of the LiDAR frame.

    Example::

        dict(type='CustomObjectRangeFilter', point_cloud_range=[-15, -30, -2, 15, 30, 2])
    """

    def __init__(self, point_cloud_range: Sequence[float]) -> None:
        if len(point_cloud_range) != 6:
            raise UserError(f'point_cloud_range={point_cloud_range!r} must have six values')
        self.point_cloud_range = list(point_cloud_range)

    def transform(self, results: dict) -> dict:
        """Shorten the objects' tensors."""
        if 'gt_bboxes_3d' not in results:
            return results
        x_min, y_min, _, x_max, y_max, _ = self.point_cloud_range
        x, y = results['gt_bboxes_3d'][:, :2].unbind(dim=1)
        keep_objects(results, (x > x_min) & (x < x_max) & (y > y_min) & (y < y_max))
        yaw = results['gt_bboxes_3d'][:, 6]
        yaw -= (yaw / (2 * math.pi) + 0.5).floor() * (2 * math.pi)
        return results


@TRANSFORMS.register_module()
class CustomObjectNameFilter(BaseTransform):
    """Keep objects of the first ``len(classes)`` labels; those of other classes have the label -1.

    Frames without ground truth pass unchanged.

    Args:
        classes: Names of the classes, those of the data set.

    Example::

        dict(type='CustomObjectNameFilter', classes=class_names)
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    def transform(self, results: dict) -> dict:
        """Shorten the objects' tensors."""
        if 'gt_labels_3d' in results:
            labels = results['gt_labels_3d']
            keep_objects(results, (labels >= 0) & (labels < len(self.classes)))
        return results


def keep_objects(results: dict, mask: Tensor) -> None:
    """Apply a mask ``(n,)`` to boxes, labels and attributes; the tensors are new ones."""
    for key in OBJECT_KEYS:
        results[key] = results[key][mask]
