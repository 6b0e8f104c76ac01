"""One frame as the model's input and sample."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.structures import Det3DDataSample
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement, InstanceData

from projects.prune_plugin.common.errors import UserError

FRAME_KEYS = ('can_bus', 'lidar2img', 'scene_token', 'sample_idx', 'timestamp')
SAMPLE_KEYS = (
    'sample_idx',
    'scene_token',
    'index',
    'ego2global',
    'lidar2ego',
    'img_paths',
    'ori_lidar2img',
    'fut_valid_flag',
)
MAP_KEYS = ('labels', 'pts', 'bboxes', 'shifted_pts')


@TRANSFORMS.register_module()
class PackVADInputs(BaseTransform):
    """Turn one frame into ``dict(inputs=dict(img=...), data_samples=...)``.

    ``img`` is ``(1, N, 3, H, W)`` float32. The sample's meta information has ``frames``, a list of
    the one frame with what belongs to it alone (``can_bus``, ``lidar2img``, ``img_shape``,
    ``scene_token``, ``sample_idx``, ``timestamp``), and what belongs to the item. Ground truth,
    where there is some, becomes ``gt_instances_3d``, ``gt_map`` and ``gt_ego``.

    Raises:
        UserError: The images of the frame differ in size.

    Example::

        pipeline=[..., dict(type='PackVADInputs')]
    """

    def transform(self, results: dict) -> dict:
        """The packed frame."""
        images = stack_images(results['img'])
        frame = {key: results[key] for key in FRAME_KEYS}
        frame['img_shape'] = tuple(images.shape[-2:])
        meta = {key: results[key] for key in SAMPLE_KEYS}
        if 'map_vectors' in results:
            meta['map_vectors'] = results['map_vectors']
        sample = Det3DDataSample(metainfo=dict(meta, frames=[frame]))
        if 'gt_bboxes_3d' in results:
            sample.gt_instances_3d = InstanceData(
                bboxes_3d=results['gt_bboxes_3d'],
                labels_3d=results['gt_labels_3d'],
                attr_labels=results['attr_labels'],
            )
        if 'gt_map' in results:
            lines = {key: torch.as_tensor(results['gt_map'][key]) for key in MAP_KEYS}
            sample.gt_map = InstanceData(**lines)
        if 'gt_ego' in results:
            sample.gt_ego = BaseDataElement(**results['gt_ego'])
        return dict(inputs=dict(img=images[None]), data_samples=sample)


def stack_images(images: Sequence[np.ndarray]) -> torch.Tensor:
    """N images ``(H, W, 3)`` as one contiguous tensor ``(N, 3, H, W)`` float32."""
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise UserError(
            f'the images of a frame have the sizes {sorted(sizes)} (height, width); '
            'one size would be valid'
        )
    height, width = sizes.pop()
    stacked = np.empty((len(images), 3, height, width), dtype=np.float32)
    for target, image in zip(stacked, images, strict=True):
        target[:] = image.transpose(2, 0, 1)
    return torch.from_numpy(stacked)
