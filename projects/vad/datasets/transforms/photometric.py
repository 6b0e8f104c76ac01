"""Random brightness, contrast and colour for training."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from projects.prune_plugin.common.errors import UserError


@TRANSFORMS.register_module()
class PhotoMetricDistortionMultiViewImage(BaseTransform):
    """Distort each image of a frame by itself, every step with probability one half.

    The steps: a shift of brightness; a factor of contrast, now or after the colours; a factor of
    saturation; a turn of the hue; a permutation of the channels. Images are float32 BGR in
    [0, 255], and values may leave that range. Behind the scaling it costs a sixth of what it costs
    before it.

    Args:
        brightness_delta: Largest shift, in grey levels.
        contrast_range: Smallest and largest factor.
        saturation_range: Smallest and largest factor.
        hue_delta: Largest turn, in degrees.

    Example::

        pipeline=[..., dict(type='PhotoMetricDistortionMultiViewImage'), ...]
    """

    def __init__(
        self,
        brightness_delta: float = 32,
        contrast_range: tuple[float, float] = (0.5, 1.5),
        saturation_range: tuple[float, float] = (0.5, 1.5),
        hue_delta: float = 18,
    ) -> None:
        for name, value in (('contrast', contrast_range), ('saturation', saturation_range)):
            if len(value) != 2 or not 0 <= value[0] <= value[1]:
                raise UserError(
                    f'{name}_range={value!r} must be a smallest and a largest factor, 0 or more'
                )
        self.brightness_delta = brightness_delta
        self.contrast_range = tuple(contrast_range)
        self.saturation_range = tuple(saturation_range)
        self.hue_delta = hue_delta

    def transform(self, results: dict) -> dict:
        """Replace ``img``."""
        results['img'] = [self.distort(image) for image in results['img']]
        return results

    def distort(self, image: np.ndarray) -> np.ndarray:
        """One image ``(H, W, 3)``, changed in place where that is possible."""
        if _coin():
            image += np.float32(np.random.uniform(-self.brightness_delta, self.brightness_delta))
        contrast = np.random.uniform(*self.contrast_range) if _coin() else 1.0
        contrast_first = _coin()
        saturation = np.random.uniform(*self.saturation_range) if _coin() else 1.0
        hue = np.random.uniform(-self.hue_delta, self.hue_delta) if _coin() else 0.0
        if contrast_first:
            image *= np.float32(contrast)
        if saturation != 1 or hue:
            image = shift_colors(image, saturation, hue)
        if not contrast_first:
            image *= np.float32(contrast)
        if _coin():
            image = image[..., np.random.permutation(3)]
        return image


def shift_colors(image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """A float32 BGR image with its saturation multiplied and its hue turned by degrees."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if hue:
        angles = hsv[..., 0]
        angles += np.float32(hue)
        angles[angles > 360] -= 360
        angles[angles < 0] += 360
    hsv[..., 1] *= np.float32(saturation)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _coin() -> bool:
    return bool(np.random.randint(2))
