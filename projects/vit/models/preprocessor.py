"""Batch preparation for image classification: device, float, normalisation."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS

from projects.prune_plugin.common.errors import UserError


@MODELS.register_module()
class ImageClsPreprocessor(BaseDataPreprocessor):
    """Turn a batch of images into normalised floats on the model's device.

    ``inputs`` is a ``(N, C, H, W)`` tensor or a list of ``(C, H, W)`` tensors, ``gt_label`` a
    ``(N,)`` tensor or a list of integers. Integer images are divided by 255; floating point
    images are taken to be in [0, 1] already. The statistics are no part of the state dict.

    Args:
        mean: One value per channel, in units of [0, 1].
        std: One value per channel, in units of [0, 1], larger than 0.
        non_blocking: Copy to the device without waiting (needs pinned memory to have an effect).

    Example::

        data_preprocessor=dict(type='ImageClsPreprocessor', mean=[0.5], std=[0.5])
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], non_blocking: bool = True
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        if len(mean) != len(std) or not mean:
            raise UserError(
                f'data_preprocessor.mean={list(mean)} and std={list(std)} must have the same '
                'number of values, one per channel'
            )
        if min(std) <= 0:
            raise UserError(f'data_preprocessor.std={list(std)} must be larger than 0')
        shape = (1, len(mean), 1, 1)
        self.register_buffer('mean', torch.tensor(mean).float().view(shape), persistent=False)
        self.register_buffer('std', torch.tensor(std).float().view(shape), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``data`` with ``inputs`` as normalised floats and ``gt_label`` as a tensor."""
        data = dict(self.cast_data(data))
        inputs, labels = data['inputs'], data.get('gt_label')
        if not isinstance(inputs, torch.Tensor):
            inputs = torch.stack(list(inputs))
        if inputs.ndim != 4 or inputs.shape[1] != self.mean.shape[1]:
            channels = self.mean.shape[1]
            raise UserError(
                f'images of shape {tuple(inputs.shape)} do not fit data_preprocessor.mean, which '
                f'has {channels} channel(s); (N, {channels}, H, W) would be valid'
            )
        scale = 1.0 if inputs.is_floating_point() else 1 / 255
        data['inputs'] = (inputs.to(self.mean.dtype) * scale - self.mean) / self.std
        if labels is not None and not isinstance(labels, torch.Tensor):
            data['gt_label'] = torch.as_tensor(labels, device=inputs.device)
        return data
