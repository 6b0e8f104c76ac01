"""GridMask against the original's way: an array with bars, cut from its middle, then inverted."""

import numpy as np
import pytest
import torch

from projects.vad.models.grid_mask import GridMask


def by_array(images, ratio, prob):
    """Draws the same random numbers in the same order."""
    if np.random.rand() > prob:
        return images
    height, width = images.shape[-2:]
    tall, wide = int(1.5 * height), int(1.5 * width)
    period = np.random.randint(2, height)
    bar = min(max(int(period * ratio + 0.5), 1), period - 1)
    first = np.random.randint(period), np.random.randint(period)
    mask = np.ones((tall, wide), np.float32)
    for i in range(tall // period):
        top = period * i + first[0]
        mask[top : min(top + bar, tall)] = 0
    for i in range(wide // period):
        left = period * i + first[1]
        mask[:, left : min(left + bar, wide)] = 0
    top, left = (tall - height) // 2, (wide - width) // 2
    mask = 1 - mask[top : top + height, left : left + width]
    return images * torch.from_numpy(mask)


@pytest.mark.parametrize('ratio', [0.5, 0.2, 0.95])
@pytest.mark.parametrize('size', [(20, 33), (33, 20), (64, 96), (7, 7)], ids=str)
def test_is_the_originals(size, ratio):
    mask, images, blanked = GridMask(ratio, prob=0.7), torch.rand(2, 3, *size) + 0.1, 0
    for seed in range(30):
        np.random.seed(seed)
        found = mask(images)
        after = np.random.rand()
        np.random.seed(seed)
        assert torch.equal(found, by_array(images, ratio, 0.7))
        assert np.random.rand() == after  # as many draws
        blanked += not torch.equal(found, images)
    assert 10 < blanked < 30


def test_all_images_get_the_same_mask():
    np.random.seed(1)
    found = GridMask(prob=1.0)(torch.ones(6, 3, 40, 50))
    assert torch.equal(found, found[:1, :1].expand_as(found))
    assert 0.5 < found.mean() < 1.0  # bars cross: more than half is kept


def test_off_in_evaluation_and_without_luck():
    images = torch.rand(2, 3, 8, 8)
    assert GridMask(prob=1.0).eval()(images) is images
    assert GridMask(prob=0.0)(images) is images


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_keeps_the_type(dtype):
    assert GridMask(prob=1.0)(torch.ones(1, 3, 9, 9, dtype=dtype)).dtype == dtype
