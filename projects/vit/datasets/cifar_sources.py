"""The forms in which CIFAR lies on a disk: which one is there, and how to read it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torchvision

from projects.prune_plugin.common.errors import DataNotFoundError, UserError

from .base import SPLITS
from .images import decode_images
from .parquet import read_parquet

SUFFIXES = ('.png', '.jpg', '.jpeg')


@dataclass(frozen=True)
class Layout:
    """What tells one CIFAR from the other: names of files, columns and classes."""

    name: str
    key: str
    torchvision_class: str
    label_columns: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Labels ``(N,)`` of a split, and how to load some of its rows as ``(n, 3, 32, 32)`` uint8."""

    labels: np.ndarray
    load: Callable[[np.ndarray], np.ndarray]
    where: str


def find_source(data_root: str, split: str, layout: Layout) -> Source:
    """Return the first form of the data set that is found at ``data_root``.

    Raises:
        DataNotFoundError: If there is none, with what was looked for.
        UserError: If there is one and it can't be read.
    """
    root = Path(data_root).expanduser()
    if root.suffix == '.parquet':
        finders = (_single_parquet,)
    else:
        finders = (_torchvision_folder, _parquet_folder, _image_folder)
    for find in finders:
        source = find(root, split, layout)
        if source is not None:
            return source
    folder = _torchvision(layout).base_folder
    reason = '' if root.exists() else ' (it does not exist)'
    raise DataNotFoundError(
        f'data_root={data_root!r}{reason} holds no {split} split of {layout.name}; valid are '
        f'a folder with {folder}/, with {layout.key}_{split}.parquet or *{split}*.parquet, or with '
        f'{split}/<class>/*.png|jpg, or one .parquet file'
    )


def _torchvision(layout: Layout) -> type:
    return getattr(torchvision.datasets, layout.torchvision_class)


def _torchvision_folder(root: Path, split: str, layout: Layout) -> Source | None:
    cls = _torchvision(layout)
    if root.name == cls.base_folder:
        root = root.parent
    folder = root / cls.base_folder
    if not folder.is_dir():
        return None
    try:
        data = cls(root, train=split == 'train', download=False)
    except RuntimeError as err:
        raise UserError(
            f'data_root={str(folder)!r} is incomplete or damaged (torchvision compares checksums); '
            f'unpack the archive of {layout.name} again'
        ) from err
    return Source(
        labels=np.asarray(data.targets, dtype=np.int64),
        load=lambda rows: data.data[rows].transpose(0, 3, 1, 2),
        where=str(folder),
    )


def _single_parquet(path: Path, split: str, layout: Layout) -> Source | None:
    """Read one file, unless its name says that it is the other split or the other CIFAR."""
    if not path.is_file() or not _is_ours(path, layout, named_only=False):
        return None
    words = [word for word in SPLITS if word in path.stem.lower()]
    return _parquet([path], layout) if not words or split in words else None


def _parquet_folder(root: Path, split: str, layout: Layout) -> Source | None:
    """Read the split's shards in ``root`` or, as on the HF hub, one folder further down."""
    for pattern in ('*.parquet', '*/*.parquet'):
        files = sorted(f for f in root.glob(pattern) if split in f.stem.lower())
        for named_only in (True, False):
            chosen = [f for f in files if _is_ours(f, layout, named_only)]
            if chosen:
                return _parquet(chosen, layout)
    return None


def _is_ours(path: Path, layout: Layout, named_only: bool) -> bool:
    """Whether the name speaks of this CIFAR or, if that will do, of neither."""
    stem, folder = (re.sub('[-_]', '', text.lower()) for text in (path.stem, path.parent.name))
    for key in ('cifar100', 'cifar10'):
        if key in stem:
            return layout.key == key
    if folder in ('cifar100', 'cifar10'):
        return layout.key == folder
    return not named_only


def _parquet(files: list[Path], layout: Layout) -> Source:
    images, labels = read_parquet(files, layout.label_columns)
    where = ', '.join(str(f) for f in files)

    def load(rows: np.ndarray) -> np.ndarray:
        return decode_images([images[int(row)].as_py() for row in rows], where, rows)

    return Source(labels=labels, load=load, where=where)


def _image_folder(root: Path, split: str, layout: Layout) -> Source | None:
    """Read ``<split>/<class>/*.png|jpg``; rows alternate the classes."""
    folder = root / split
    if not folder.is_dir() or not any(path.is_dir() for path in folder.iterdir()):
        return None
    data = torchvision.datasets.ImageFolder(
        folder, is_valid_file=lambda name: name.lower().endswith(SUFFIXES), allow_empty=True
    )
    if not data.samples:
        return None
    number = _class_numbers(data.classes, folder, layout)
    seen: dict[int, int] = {}
    ordered = []
    for path, index in data.samples:
        seen[index] = seen.get(index, -1) + 1
        ordered.append((seen[index], number[data.classes[index]], path))
    ordered.sort()

    def load(rows: np.ndarray) -> np.ndarray:
        paths = [Path(ordered[int(row)][2]) for row in rows]
        return decode_images(paths, str(folder), paths)

    labels = np.asarray([label for _, label, _ in ordered], dtype=np.int64)
    return Source(labels=labels, load=load, where=str(folder))


def _class_numbers(names: list[str], folder: Path, layout: Layout) -> dict[str, int]:
    """Map folder names to labels: the data set's class names, or the labels themselves."""
    known = {name: label for label, name in enumerate(layout.classes)}
    known.update({str(label): label for label in range(len(layout.classes))})
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f'{str(folder)!r} has class folders that {layout.name} does not know: '
            f'{", ".join(unknown[:5])}; valid are {", ".join(layout.classes[:3])} and so on, '
            f'or 0 to {len(layout.classes) - 1}'
        )
    return {name: known[name] for name in names}
