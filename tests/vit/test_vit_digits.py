"""scikit-learn's digits at 32x32."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from projects.prune_plugin.common.errors import UserError
from projects.vit.datasets import Digits


def test_split_is_fixed_stratified_and_complete():
    train, test = Digits('train'), Digits('test')
    assert (len(train), len(test)) == (1437, 360)
    counts = np.bincount(load_digits().target)
    assert np.all(np.abs(np.bincount(test.labels) - counts * 0.2) < 1)
    assert np.array_equal(np.bincount(train.labels) + np.bincount(test.labels), counts)
    assert torch.equal(Digits('test').images, test.images)
    assert test.metainfo['classes'] == tuple('0123456789')


def test_images_are_the_scans_scaled_up():
    # row j of a bilinear 8 to 32 scaling reads the input at (j + 0.5) / 4 - 0.5
    position = ((np.arange(32) + 0.5) / 4 - 0.5).clip(0, 7)
    weights = (1 - np.abs(position[:, None] - np.arange(8))).clip(0)
    scans = load_digits()
    expected = np.rint(weights @ (scans.images * 255 / 16) @ weights.T)
    for item in (Digits('train')[0], Digits('test')[-1]):
        assert item['inputs'].shape == (1, 32, 32) and item['inputs'].dtype == torch.uint8
        distance = np.abs(expected - item['inputs'].numpy()).max(axis=(1, 2))
        assert distance.min() <= 1
        assert scans.target[distance.argmin()] == item['gt_label']


def test_indices_and_transforms():
    pad = {'type': 'torchvision/Pad', 'padding': 2}
    dataset = Digits('test', transforms=[pad], indices=5)
    assert len(dataset) == 5
    assert dataset[4]['inputs'].shape == (1, 36, 36)
    with pytest.raises(IndexError):
        dataset[5]


@pytest.mark.parametrize(
    'transform',
    [{'type': 'torchvision/NoSuch'}, {'type': 'torchvision/Pad', 'width': 1}, 'Pad', {}],
)
def test_bad_transform(transform):
    with pytest.raises(UserError, match='transforms: .* is (not a registered|refused)'):
        Digits('test', transforms=[transform])
