"""Opening what lies on the disk, with one sentence about what is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from projects.prune_plugin.common.errors import DataNotFoundError, UserError

if TYPE_CHECKING:
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus
    from nuscenes.nuscenes import NuScenes

TABLES = (
    'category attribute visibility instance sensor calibrated_sensor ego_pose log scene sample '
    'sample_data sample_annotation map'
).split()


def check_tables(root: str | os.PathLike, version: str) -> Path:
    """The folder of a version's tables.

    Raises:
        DataNotFoundError: it, or some of its tables, are not there.
    """
    folder = Path(root) / version
    missing = [f'{name}.json' for name in TABLES if not (folder / f'{name}.json').is_file()]
    if missing:
        what = f'lacks {", ".join(missing)}' if folder.is_dir() else 'does not exist'
        raise DataNotFoundError(
            f'--root-path {root} holds no nuScenes {version}: {folder} {what}; unpack the metadata of '
            f'{version} there'
        )
    return folder


def open_tables(root: str | os.PathLike, version: str) -> NuScenes:
    """The tables of a nuScenes folder.

    Raises:
        DataNotFoundError: some are not there.
        UserError: they can't be read.
    """
    folder = check_tables(root, version)
    from nuscenes.nuscenes import NuScenes

    try:
        return NuScenes(version=version, dataroot=os.fspath(root), verbose=False)
    except Exception as error:  # the devkit asserts, and raises whatever a broken table causes
        raise UserError(
            f'the tables in {folder} cannot be read ({type(error).__name__}: {error}); '
            f'unpack the metadata of {version} again'
        ) from error


def open_can_bus(root: str | os.PathLike) -> NuScenesCanBus:
    """The CAN bus expansion in ``root/can_bus``.

    Raises:
        DataNotFoundError: it isn't there.
    """
    folder = Path(root) / 'can_bus'
    if not folder.is_dir():
        raise DataNotFoundError(
            f'--canbus {root} holds no folder can_bus; unpack the nuScenes CAN bus expansion there'
        )
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus

    return NuScenesCanBus(dataroot=os.fspath(root))


def sensor_files(nusc: NuScenes, sample: dict, sensors: tuple[str, ...]) -> list[Path]:
    """The files of a key frame's sensors."""
    return [
        Path(nusc.dataroot) / nusc.get('sample_data', sample['data'][sensor])['filename']
        for sensor in sensors
    ]
