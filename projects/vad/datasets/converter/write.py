"""Info files of a data set: written whole, and found again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from projects.prune_plugin.common.errors import DataNotFoundError, UserError

from ..infos import INFO_FILE, load_infos, save_infos
from .build import build_infos

SPLIT_NAMES = ('train', 'val')


def info_paths(folder: str | os.PathLike) -> dict[str, Path]:
    """The info files of a folder, by split, whether they are there or not."""
    return {split: Path(folder) / INFO_FILE.format(split=split) for split in SPLIT_NAMES}


def existing_infos(folder: str | os.PathLike) -> dict[str, Any] | None:
    """The metadata of a folder's info files; None where one is missing, or they can't be used."""
    try:
        train, val = (load_infos(path)['metadata'] for path in info_paths(folder).values())
    except DataNotFoundError:
        return None
    except UserError as error:
        print_log(f'made again: {error}', 'current')
        return None
    return train if train == val else None


def write_infos(
    root: str | os.PathLike,
    canbus_root: str | os.PathLike,
    version: str = 'v1.0-trainval',
    out_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Build a data set's records and write them to one file for each split.

    Args:
        root: A nuScenes folder.
        canbus_root: The folder that holds ``can_bus``.
        version: ``v1.0-mini`` or ``v1.0-trainval``.
        out_dir: Where the files go; default: ``root``.
        progress: Whether to show how far it is.

    Returns:
        The files, by split.

    Raises:
        UserError: something is missing or can't be read; see :func:`build_infos`.
    """
    paths = info_paths(root if out_dir is None else out_dir)
    infos = build_infos(root, canbus_root, version, progress)
    for split, path in paths.items():
        save_infos(dict(infos=infos[split], metadata=dict(version=version)), path)
        print_log(f'{path.name}: {len(infos[split])} key frames', 'current')
    return paths
