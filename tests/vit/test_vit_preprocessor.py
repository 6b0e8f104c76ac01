"""Normalisation of image batches."""

import pytest
import torch
from mmengine.registry import MODELS

from projects.prune_plugin.common.errors import UserError
from projects.vit.models import ImageClsPreprocessor


def test_uint8_is_scaled_and_normalised():
    preprocessor = MODELS.build(
        {'type': 'ImageClsPreprocessor', 'mean': [0.2, 0.4], 'std': [0.5, 2]}
    )
    inputs = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8)
    out = preprocessor({'inputs': inputs, 'gt_label': torch.tensor([1, 2, 3])}, training=True)
    expected = inputs.double() / 255
    expected[:, 0] = (expected[:, 0] - 0.2) / 0.5
    expected[:, 1] = (expected[:, 1] - 0.4) / 2
    assert out['inputs'].dtype == torch.float32
    torch.testing.assert_close(out['inputs'].double(), expected, rtol=0, atol=1e-6)
    assert out['gt_label'].tolist() == [1, 2, 3]


def test_floats_and_lists():
    preprocessor = ImageClsPreprocessor(mean=[0.0], std=[1.0])
    images = [torch.rand(1, 4, 4) for _ in range(2)]
    out = preprocessor({'inputs': images, 'gt_label': [0, 1]})
    assert torch.equal(out['inputs'], torch.stack(images))
    assert out['gt_label'].tolist() == [0, 1]


def test_statistics_stay_out_of_the_state_dict():
    assert not ImageClsPreprocessor(mean=[0.5], std=[0.5]).state_dict()


@pytest.mark.parametrize(('mean', 'std'), [([0.5], [0.5, 0.5]), ([], []), ([0.5], [0.0])])
def test_bad_statistics(mean, std):
    with pytest.raises(UserError, match='data_preprocessor'):
        ImageClsPreprocessor(mean=mean, std=std)


def test_wrong_number_of_channels():
    with pytest.raises(UserError, match='1 channel'):
        ImageClsPreprocessor(mean=[0.5], std=[0.5])({'inputs': torch.zeros(2, 3, 4, 4)})
