"""Batch preparation for VAD: device, normalisation, padding."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor

from projects.prune_plugin.common.errors import UserError


@MODELS.register_module()
class VADDataPreprocessor(BaseDataPreprocessor):
    """Normalise the images, then pad them with zeros at the bottom and right.

    ``inputs['img']`` comes as a list of B tensors ``(T, N, 3, H, W)`` as loaded (BGR in [0, 255]),
    or as one tensor with a leading B, and leaves as ``(B, T, N, 3, Hp, Wp)`` float32. Each frame's
    ``img_shape`` in the samples becomes ``(Hp, Wp)``. Samples and inputs given are not changed. The
    statistics are no part of the state dict.

    Args:
        mean: One value per channel, in the order after ``bgr_to_rgb``; None leaves values alone.
        std: One value per channel, larger than 0; ones without it.
        bgr_to_rgb: Whether the channels are reversed first.
        pad_size_divisor: Height and width become multiples of it.
        non_blocking: Copy to the device without waiting (has an effect with pinned memory).

    Example::

        data_preprocessor=dict(
            type='VADDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr_to_rgb: bool = False,
        pad_size_divisor: int = 32,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        if mean is None and std is not None:
            raise UserError(f'data_preprocessor.std={list(std)} needs a mean as well')
        for name, values in (('mean', mean), ('std', std)):
            if values is not None and len(values) != 3:
                raise UserError(f'data_preprocessor.{name}={list(values)} must have three values')
        if std is not None and min(std) <= 0:
            raise UserError(f'data_preprocessor.std={list(std)} must be larger than 0')
        if pad_size_divisor < 1:
            raise UserError(
                f'data_preprocessor.pad_size_divisor={pad_size_divisor} must be 1 or more'
            )
        self.normalize = mean is not None
        self.bgr_to_rgb = bgr_to_rgb
        self.pad_size_divisor = pad_size_divisor
        for name, values in (('mean', mean or [0.0] * 3), ('std', std or [1.0] * 3)):
            buffer = torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """``data`` with its images as one batch, everything on the model's device."""
        data = dict(data)
        images = check_images(data['inputs']['img'])
        batch = self.batch_images(images)
        data['inputs'] = {**self.cast_data({**data['inputs'], 'img': None}), 'img': batch}
        if data.get('data_samples') is not None:
            samples = [self.cast_data(sample) for sample in data['data_samples']]
            for sample in samples:
                shape = tuple(batch.shape[-2:])
                frames = [dict(frame, img_shape=shape) for frame in sample.frames]
                sample.set_metainfo(dict(frames=frames))
            data['data_samples'] = samples
        return data

    def batch_images(self, images: Sequence[Tensor]) -> Tensor:
        """B tensors ``(T, N, 3, H, W)`` as one, normalised and padded."""
        *leading, height, width = images[0].shape
        shape = [
            -(-size // self.pad_size_divisor) * self.pad_size_divisor for size in (height, width)
        ]
        batch = self.mean.new_zeros((len(images), *leading, *shape))
        for target, image in zip(batch[..., :height, :width], images, strict=True):
            image = image.to(self.device, non_blocking=self._non_blocking)
            if self.bgr_to_rgb:
                image = image.flip(-3)
            if self.normalize:
                torch.sub(image, self.mean, out=target).div_(self.std)
            else:
                target.copy_(image)
        return batch


def check_images(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The images of a batch, one tensor per item.

    Raises:
        UserError: They aren't ``(T, N, 3, H, W)``, or differ in shape.
    """
    images = list(images)
    shapes = [tuple(image.shape) for image in images]
    if not images or any(len(shape) != 5 or shape[2] != 3 for shape in shapes):
        raise UserError(f'images of shape {shapes} are no batch; (T, N, 3, H, W) each is valid')
    if len(set(shapes)) > 1:
        raise UserError(
            f'the images of a batch have the shapes {sorted(set(shapes))}; one shape is valid: '
            'set batch_size=1 or give all frames one size'
        )
    return images
