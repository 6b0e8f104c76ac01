"""Decoding a frame's images."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from projects.prune_plugin.common.errors import UserError

FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


@TRANSFORMS.register_module()
class VADLoadMultiViewImageFromFiles(BaseTransform):
    """Load ``img_paths`` as ``img``, a list of ``(H, W, 3)`` float32 arrays, BGR in [0, 255].

    Raises:
        UserError: An image is missing or can't be decoded; it names the file.

    Example::

        pipeline=[dict(type='VADLoadMultiViewImageFromFiles'), ...]
    """

    def transform(self, results: dict) -> dict:
        """Add ``img``."""
        results['img'] = [read_image(path).astype(np.float32) for path in results['img_paths']]
        return results


def read_image(path: str) -> np.ndarray:
    """An image file as ``(H, W, 3)`` uint8, BGR.

    Raises:
        UserError: The file is missing or can't be decoded.
    """
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        reason = error.strerror or 'unreadable'
        raise UserError(f'image {str(path)!r} of the data set can not be read: {reason}') from error
    image = cv2.imdecode(encoded, FLAGS) if encoded.size else None
    if image is None:
        raise UserError(f'image {str(path)!r} of the data set is no image that can be decoded')
    return image
