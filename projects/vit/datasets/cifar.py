"""CIFAR-10 and CIFAR-100 from whatever form they lie on the disk in."""

from collections.abc import Sequence

from mmengine.registry import DATASETS

from projects.prune_plugin.common.errors import UserError

from .base import ArrayDataset, check_split, select_rows
from .cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from .cifar_sources import Layout, find_source


class _CIFAR(ArrayDataset):
    """A CIFAR data set; ``data_root`` is looked at to see which form it has.

    Valid forms, in the order in which they are looked for: one ``.parquet`` file (for the split in
    its name, or for both); a folder with torchvision's ``cifar-10-batches-py`` or
    ``cifar-100-python`` (or that folder itself); a folder with ``*train*.parquet`` and
    ``*test*.parquet``; a folder ``<split>/<class>/*.png|jpg``. Images are decoded once, up front,
    and only those asked for.

    Args:
        data_root: The folder or file.
        split: 'train' or 'test'.
        transforms: Configs of transforms on a ``(3, 32, 32)`` tensor.
        indices: None for all, ``n`` for the first n, ``-n`` for the last n, or row numbers. Rows of
            an image folder are ordered so that the classes alternate; others keep their order.

    Raises:
        DataNotFoundError: If ``data_root`` holds no such data set.
        UserError: If it does and can't be read, or if its labels are those of another data set.
    """

    layout: Layout

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        transforms: Sequence[dict] | None = None,
        indices: int | Sequence[int] | None = None,
    ) -> None:
        source = find_source(str(data_root), check_split(split), self.layout)
        rows = select_rows(len(source.labels), indices)
        labels, classes = source.labels, self.layout.classes
        if labels.min() < 0 or labels.max() >= len(classes):
            raise UserError(
                f'labels of {source.where} reach from {labels.min()} to {labels.max()}, but '
                f'{type(self).__name__} has the classes 0..{len(classes) - 1}'
            )
        super().__init__(source.load(rows), labels[rows], classes, transforms)


@DATASETS.register_module()
class CIFAR10(_CIFAR):
    __doc__ = _CIFAR.__doc__
    layout = Layout(
        name='CIFAR-10',
        key='cifar10',
        torchvision_class='CIFAR10',
        label_columns=('label', 'labels'),
        classes=CIFAR10_CLASSES,
    )


@DATASETS.register_module()
class CIFAR100(_CIFAR):
    __doc__ = _CIFAR.__doc__
    layout = Layout(
        name='CIFAR-100',
        key='cifar100',
        torchvision_class='CIFAR100',
        label_columns=('fine_label', 'label', 'labels'),
        classes=CIFAR100_CLASSES,
    )
