"""Normalising after resizing, padding, and what happens to the samples."""

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from projects.prune_plugin.common.errors import UserError
from projects.vad.models.data_preprocessor import VADDataPreprocessor

RELEASED = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0])
TORCHVISION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


def item(height=36, width=64, frames=2, seed=0) -> dict:
    images = torch.rand(frames, 6, 3, height, width, generator=torch.manual_seed(seed)) * 255
    meta = [dict(img_shape=(height, width), can_bus=np.zeros(18)) for _ in range(frames)]
    sample = Det3DDataSample(metainfo=dict(frames=meta, sample_idx=f'token{seed}'))
    sample.gt_instances_3d = InstanceData(labels_3d=torch.arange(3))
    return dict(inputs=dict(img=images), data_samples=sample)


def original_order(image: np.ndarray, scale: float, mean, std, bgr_to_rgb=False) -> np.ndarray:
    """Normalise at full size, then resize, then pad: how published weights were trained."""
    image = image[..., ::-1] if bgr_to_rgb else image
    image = ((image - np.array(mean)) / np.array(std)).astype(np.float32)
    size = int(image.shape[1] * scale), int(image.shape[0] * scale)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    height, width = (-(-length // 32) * 32 for length in image.shape[:2])
    padded = np.zeros((height, width, 3), np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


@pytest.mark.parametrize('statistics', [RELEASED, TORCHVISION])
@pytest.mark.parametrize('scale', [0.4, 0.8, 0.37])
def test_resizing_first_gives_the_same_image(statistics, scale):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (450, 800, 3), dtype=np.uint8).astype(np.float32)
    size = int(image.shape[1] * scale), int(image.shape[0] * scale)
    small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    tensor = torch.from_numpy(small).permute(2, 0, 1)[None, None]
    batch = VADDataPreprocessor(**statistics)(dict(inputs=dict(img=[tensor])))['inputs']['img']
    expected = original_order(image, scale, **statistics)
    assert batch.shape == (1, 1, 1, 3, *expected.shape[:2])
    assert np.abs(batch[0, 0, 0].permute(1, 2, 0).numpy() - expected).max() < 1e-4


def test_a_collated_batch():
    items = [item(seed=0), item(seed=1)]
    data = VADDataPreprocessor(**RELEASED)(pseudo_collate(items))
    batch = data['inputs']['img']
    assert batch.shape == (2, 2, 6, 3, 64, 64) and batch.dtype == torch.float32
    mean = torch.tensor(RELEASED['mean']).view(3, 1, 1)
    assert torch.equal(batch[1, ..., :36, :], items[1]['inputs']['img'] - mean)
    assert not batch[..., 36:, :].any()
    for before, after in zip(items, data['data_samples'], strict=True):
        assert after.sample_idx == before['data_samples'].sample_idx
        assert [frame['img_shape'] for frame in after.frames] == [(64, 64)] * 2
        assert [frame['img_shape'] for frame in before['data_samples'].frames] == [(36, 64)] * 2
        assert after.gt_instances_3d.labels_3d.tolist() == [0, 1, 2]


def test_without_mean_values_stay():
    images = item(height=32, width=64)['inputs']['img']
    batch = VADDataPreprocessor()(dict(inputs=dict(img=[images])))['inputs']['img']
    assert torch.equal(batch[0], images)


def test_one_tensor_is_a_batch_as_well_and_bytes_are_taken():
    images = torch.randint(0, 256, (2, 1, 6, 3, 32, 32), dtype=torch.uint8)
    batch = VADDataPreprocessor(**RELEASED)(dict(inputs=dict(img=images)))['inputs']['img']
    mean = torch.tensor(RELEASED['mean']).view(3, 1, 1)
    assert torch.equal(batch, images.float() - mean)


def test_statistics_are_not_saved():
    assert VADDataPreprocessor(**RELEASED).state_dict() == {}


def test_samples_and_images_go_to_the_device():
    preprocessor = VADDataPreprocessor(**RELEASED).to('meta')
    data = preprocessor(pseudo_collate([item()]))
    assert data['inputs']['img'].device.type == 'meta'
    assert data['data_samples'][0].gt_instances_3d.labels_3d.device.type == 'meta'


def test_it_is_registered():
    built = MODELS.build(dict(type='VADDataPreprocessor', pad_size_divisor=16))
    assert isinstance(built.batch_images([torch.zeros(1, 6, 3, 17, 16)]), Tensor)
    assert built.batch_images([torch.zeros(1, 6, 3, 17, 16)]).shape[-2:] == (32, 16)


@pytest.mark.parametrize(
    ('items', 'word'),
    [
        ([item(), item(height=40)], 'batch_size=1'),
        ([item(), item(frames=3)], 'batch_size=1'),
        ([dict(inputs=dict(img=torch.zeros(6, 3, 32, 32)))], r'\(T, N, 3, H, W\)'),
    ],
)
def test_batches_that_do_not_fit_are_refused(items, word):
    images = [each['inputs']['img'] for each in items]
    with pytest.raises(UserError, match=word):
        VADDataPreprocessor()(dict(inputs=dict(img=images)))


@pytest.mark.parametrize(
    'arguments',
    [
        dict(std=[1.0] * 3),
        dict(mean=[0.0]),
        dict(mean=[0.0] * 3, std=[1.0, 0.0, 1.0]),
        dict(pad_size_divisor=0),
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(UserError, match=f'data_preprocessor.{list(arguments)[-1]}'):
        VADDataPreprocessor(**arguments)
