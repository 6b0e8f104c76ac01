"""From tables to records: scenes of a split, key frame by key frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from mmengine.logging import print_log
from rich.progress import track

from projects.prune_plugin.common.errors import DataNotFoundError, UserError

from ..infos import CAMERAS
from ..vector_map import MapProvider
from .agents import Annotations, agent_fields
from .can_bus import SceneCan
from .ego import ego_fields, state_feature
from .geometry import multiply, pose_matrix
from .sensors import cameras, sweeps
from .tables import open_can_bus, open_tables, sensor_files

if TYPE_CHECKING:
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus
    from nuscenes.nuscenes import NuScenes

#: Our splits, and what the devkit calls them, for each version of the data set.
SPLITS = {
    'v1.0-mini': dict(train='mini_train', val='mini_val'),
    'v1.0-trainval': dict(train='train', val='val'),
}
LIDAR = 'LIDAR_TOP'


def build_infos(
    root: str | os.PathLike,
    canbus_root: str | os.PathLike,
    version: str = 'v1.0-trainval',
    progress: bool = True,
) -> dict[str, list[dict]]:
    """The records of all key frames whose files are there, for ``train`` and ``val``.

    File names in them are relative to ``root``, so that a data set can be moved.

    Args:
        root: A nuScenes folder: tables, samples and the map expansion.
        canbus_root: The folder that holds ``can_bus``.
        version: ``v1.0-mini`` or ``v1.0-trainval``.
        progress: Whether to show how far it is.

    Raises:
        DataNotFoundError: tables, maps, CAN bus or all files are missing.
        UserError: the version is another one, or something can't be read.
    """
    if version not in SPLITS:
        raise UserError(f'version {version!r} is none of {", ".join(SPLITS)}')
    can_bus = open_can_bus(canbus_root)
    nusc = open_tables(root, version)
    scenes = _scenes_of_splits(nusc, version)
    jobs = [(split, scene) for split, found in scenes.items() for scene in found]
    maps = MapProvider(root)
    for town in sorted({_town(nusc, scene) for _, scene in jobs}):
        maps.layers(town)  # what is missing is missed before the long part
    annotations = Annotations(nusc)
    infos: dict[str, list[dict]] = {split: [] for split in scenes}
    for split, scene in track(jobs, f'reading {version}', disable=not progress):
        infos[split].extend(_scene_infos(nusc, can_bus, annotations, maps, scene))
    for found in infos.values():
        found.sort(key=lambda info: nusc.getind('sample', info['token']))
    return infos


def _scenes_of_splits(nusc: NuScenes, version: str) -> dict[str, list[dict]]:
    """The scenes of each split whose files are there."""
    from nuscenes.utils.splits import create_splits_scenes

    names = create_splits_scenes()
    here = {scene['name']: scene for scene in nusc.scene if _has_files(nusc, scene)}
    scenes = {
        split: [here[name] for name in names[official] if name in here]
        for split, official in SPLITS[version].items()
    }
    found = sum(map(len, scenes.values()))
    if not found:
        raise DataNotFoundError(
            f'--root-path {nusc.dataroot} has the tables of {version}, but the camera and LiDAR files '
            'of no scene; unpack the samples there'
        )
    left_out = len(nusc.scene) - found
    if left_out:
        print_log(
            f'{left_out} of {len(nusc.scene)} scenes are left out: they belong to no split of '
            f'{version}, or their files are not in {nusc.dataroot}',
            'current',
        )
    return scenes


def _has_files(nusc: NuScenes, scene: dict) -> bool:
    first = nusc.get('sample', scene['first_sample_token'])
    return all(path.is_file() for path in sensor_files(nusc, first, (LIDAR, *CAMERAS)))


def _town(nusc: NuScenes, scene: dict) -> str:
    return nusc.get('log', scene['log_token'])['location']


def _samples(nusc: NuScenes, scene: dict) -> Iterator[dict]:
    token = scene['first_sample_token']
    while token:
        sample = nusc.get('sample', token)
        yield sample
        token = sample['next']


def _scene_infos(
    nusc: NuScenes,
    can_bus: NuScenesCanBus,
    annotations: Annotations,
    maps: MapProvider,
    scene: dict,
) -> list[dict]:
    """The records of a scene, in order of time."""
    samples = list(_samples(nusc, scene))
    lidars = [nusc.get('sample_data', sample['data'][LIDAR]) for sample in samples]
    egos = [nusc.get('ego_pose', lidar['ego_pose_token']) for lidar in lidars]
    mounts = [nusc.get('calibrated_sensor', r['calibrated_sensor_token']) for r in lidars]
    poses = [pose_matrix(e) @ pose_matrix(m) for e, m in zip(egos, mounts, strict=True)]
    path = np.stack([pose[:3, 3] for pose in poses])
    can = SceneCan(can_bus, scene['name'])
    town = _town(nusc, scene)
    infos = []
    for i, (sample, pose) in enumerate(zip(samples, poses, strict=True)):
        vector = can.vector(sample['timestamp'])
        fields = ego_fields(path, i, pose)
        rotation = multiply(egos[i]['rotation'], mounts[i]['rotation'])
        info = dict(
            token=sample['token'],
            prev=sample['prev'],
            next=sample['next'],
            scene_token=sample['scene_token'],
            frame_idx=i,
            timestamp=sample['timestamp'],
            map_location=town,
            lidar_path=lidars[i]['filename'],
            sweeps=sweeps(nusc, sample, pose),
            cams=cameras(nusc, sample, pose),
            can_bus=vector,
            lidar2ego_translation=mounts[i]['translation'],
            lidar2ego_rotation=mounts[i]['rotation'],
            ego2global_translation=egos[i]['translation'],
            ego2global_rotation=egos[i]['rotation'],
            **fields,
            gt_ego_lcf_feat=state_feature(egos, i, fields, vector, can, sample['timestamp'], town),
            **agent_fields(nusc, annotations, sample, pose, rotation),
            map_vectors=maps.vectors(town, pose),
        )
        infos.append(info)
    return infos
