"""Map elements straight from the map expansion, for records that hold none."""

import os
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

from projects.prune_plugin.common.errors import DataNotFoundError, UserError

from .extract import MapLayers, extract

FOLDER = 'maps/expansion'


class MapProvider:
    """Reads a town's map when it is first asked for, and keeps only the layers that are needed.

    Args:
        data_root: A nuScenes folder with ``maps/expansion``.
        patch_size: Extent in y and x, metres.
    """

    def __init__(
        self, data_root: str | os.PathLike, patch_size: tuple[float, float] = (60.0, 30.0)
    ) -> None:
        self.data_root = os.fspath(data_root)
        self.patch_size = patch_size
        self._layers: dict[str, MapLayers] = {}

    def layers(self, location: str) -> MapLayers:
        """The map of a town, such as ``boston-seaport``.

        Raises:
            DataNotFoundError: it isn't there.
            UserError: it can't be read.
        """
        if location not in self._layers:
            self._layers[location] = self._read(location)
        return self._layers[location]

    def vectors(self, location: str, lidar2global: np.ndarray) -> list[dict]:
        """Map elements round a pose; see :func:`extract`."""
        return extract(self.layers(location), lidar2global, self.patch_size)

    def of_info(self, info: dict) -> list[dict]:
        """Map elements round the LiDAR of a record: its own ``map_vectors`` where it has them."""
        if 'map_vectors' in info:
            return info['map_vectors']
        lidar2ego, ego2global = (
            _matrix(info[f'{name}_translation'], info[f'{name}_rotation'])
            for name in ('lidar2ego', 'ego2global')
        )
        return self.vectors(info['map_location'], ego2global @ lidar2ego)

    def _read(self, location: str) -> MapLayers:
        folder = Path(self.data_root) / FOLDER
        path = folder / f'{location}.json'
        if not path.is_file():
            raise DataNotFoundError(
                f'map {path} does not exist; unpack the nuScenes map expansion 1.3 so that the '
                f'.json files are in {folder}'
            )
        from nuscenes.map_expansion.map_api import NuScenesMap

        try:
            return MapLayers(NuScenesMap(dataroot=self.data_root, map_name=location))
        except (
            Exception
        ) as error:  # the devkit raises bare Exceptions, and whatever the file causes
            raise UserError(
                f'map {path} is not a nuScenes map expansion of version 1.3 '
                f'({type(error).__name__}: {error})'
            ) from error


def _matrix(translation, rotation) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Quaternion(rotation).rotation_matrix
    matrix[:3, 3] = translation
    return matrix
