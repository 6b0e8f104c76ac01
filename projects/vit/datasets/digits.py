"""scikit-learn's handwritten digits: real scans that need no download."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.registry import DATASETS

from projects.prune_plugin.common.errors import DataNotFoundError

from .base import ArrayDataset, check_split, select_rows

IMAGE_SIZE = 32
TEST_SHARE = 0.2


@DATASETS.register_module()
class Digits(ArrayDataset):
    """The 1,797 8x8 scans of scikit-learn, scaled up bilinearly to 32x32, uint8, one channel.

    A fifth of every class is the test split (stratified, seed 0): 1,437 images to 360.

    Args:
        split: 'train' or 'test'.
        transforms: Configs of transforms on a ``(1, 32, 32)`` tensor.
        indices: None for all, ``n`` for the first n, ``-n`` for the last n, or row numbers.

    Example::

        dataset=dict(type='Digits', split='test')
    """

    def __init__(
        self,
        split: str = 'train',
        transforms: Sequence[dict] | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> None:
        images, labels = load_digits_split(check_split(split))
        rows = select_rows(len(labels), indices)
        super().__init__(images[rows], labels[rows], [str(i) for i in range(10)], transforms)


def load_digits_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``(N, 1, 32, 32)`` uint8 and labels ``(N,)`` of one split."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as err:
        raise DataNotFoundError(
            "the data set 'Digits' comes with scikit-learn, which is not installed; "
            'pip install scikit-learn'
        ) from err
    data = load_digits()
    train, test = train_test_split(
        np.arange(len(data.target)), test_size=TEST_SHARE, stratify=data.target, random_state=0
    )
    rows = train if split == 'train' else test
    scans = torch.from_numpy(data.images[rows]).float()[:, None] * (255 / 16)  # 17 grey levels
    size = (IMAGE_SIZE, IMAGE_SIZE)
    images = F.interpolate(scans, size=size, mode='bilinear', align_corners=False)
    return images.round().clamp(0, 255).to(torch.uint8).numpy(), data.target[rows]
