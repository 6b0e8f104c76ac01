"""Images held in memory as one uint8 array."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.wrappable import Wrappable

from .transforms import build_transforms

SPLITS = ('train', 'test')


def check_split(split: str) -> str:
    """Return ``split``, or raise UserError if it is neither 'train' nor 'test'."""
    if split not in SPLITS:
        raise UserError(f"split={split!r} is unknown; 'train' and 'test' are valid")
    return split


def select_rows(total: int, indices: int | Sequence[int] | None) -> np.ndarray:
    """Return the row numbers that ``indices`` asks for.

    Args:
        total: How many rows there are.
        indices: None for all, ``n`` for the first n, ``-n`` for the last n, or row numbers.

    Raises:
        UserError: If ``indices`` selects nothing or goes beyond the rows.
    """
    if indices is None:
        return np.arange(total)
    if isinstance(indices, int) and not isinstance(indices, bool):
        if indices == 0 or abs(indices) > total:
            raise UserError(f'indices={indices} must be within 1..{total} or -{total}..-1')
        return np.arange(total)[:indices] if indices > 0 else np.arange(total)[indices:]
    rows = np.asarray(indices)
    if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in 'iu':
        raise UserError(f'indices={indices!r} must be None, an integer or a list of integers')
    if rows.min() < 0 or rows.max() >= total:
        raise UserError(
            f'indices reach from {rows.min()} to {rows.max()}, but rows are 0..{total - 1}'
        )
    return rows


class ArrayDataset(Wrappable, Dataset):
    """A classification data set whose images all lie in memory.

    Items are ``dict(inputs=uint8 tensor (C, H, W) after the transforms, gt_label=int)``, which
    MMEngine's ``default_collate`` batches.

    Args:
        images: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` integers in [0, number of classes).
        classes: Names of the classes, in the order of the labels.
        transforms: Configs of transforms on a ``(C, H, W)`` tensor.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str],
        transforms: Sequence[dict] | None = None,
    ) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images))
        self.labels = [int(label) for label in labels]
        self.transforms = build_transforms(transforms)
        self._metainfo = {'classes': tuple(classes)}

    def get_cat_ids(self, index: int) -> list[int]:
        """The class of an image, for ``ClassBalancedDataset``."""
        return [self.labels[index]]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        image = self.images[index].clone()
        if self.transforms is not None:
            image = self.transforms(image)
        return {'inputs': image, 'gt_label': self.labels[index]}
