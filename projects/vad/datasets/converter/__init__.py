"""Info files from a nuScenes folder, through nuscenes-devkit."""

from .build import SPLITS, build_infos
from .prepare import prepare_nuscenes, prepare_toy
from .write import existing_infos, info_paths, write_infos

__all__ = [
    'SPLITS',
    'build_infos',
    'existing_infos',
    'info_paths',
    'prepare_nuscenes',
    'prepare_toy',
    'write_infos',
]
