"""Making a frame's images smaller, and its projections with them."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from projects.prune_plugin.common.errors import UserError


@TRANSFORMS.register_module()
class RandomScaleImageMultiViewImage(BaseTransform):
    """Resize all images of a frame by one factor; ``lidar2img`` follows, ``ori_lidar2img`` stays.

    Width and height are rounded down. With several factors, each frame draws one: for the frames of
    a training queue, or a batch of several items, to have one size there must be only one.

    Args:
        scales: Factors to choose from, larger than 0; 1 leaves the images alone.

    Raises:
        UserError: There are no factors, or one isn't larger than 0.

    Example::

        pipeline=[..., dict(type='RandomScaleImageMultiViewImage', scales=[0.4]), ...]
    """

    def __init__(self, scales: Sequence[float]) -> None:
        if not scales or min(scales) <= 0:
            raise UserError(f'scales={scales!r} must be a list of factors larger than 0')
        self.scales = list(scales)

    def transform(self, results: dict) -> dict:
        """Replace ``img`` and ``lidar2img``."""
        scale = self.scales[0]
        if len(self.scales) > 1:
            scale = self.scales[np.random.randint(len(self.scales))]
        if scale != 1:
            results['img'] = [resize(image, scale) for image in results['img']]
            results['lidar2img'] = np.diag([scale, scale, 1.0, 1.0]) @ results['lidar2img']
        return results


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    """The image ``(H, W, 3)`` by bilinear interpolation between the nearest pixels."""
    height, width = image.shape[:2]
    size = int(width * scale), int(height * scale)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
