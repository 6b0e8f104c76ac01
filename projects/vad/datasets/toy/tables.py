"""The thirteen tables of the nuScenes schema."""

import hashlib
import json
from pathlib import Path as FilePath

from .place import LOCATION, MASK
from .rig import LIDAR, LIDAR_POSITION, LIDAR_ROTATION, Camera, quaternion

# the 32 categories in the order of the lidarseg extension: row numbers carry meaning
CATEGORIES = """noise animal human.pedestrian.adult human.pedestrian.child
human.pedestrian.construction_worker human.pedestrian.personal_mobility
human.pedestrian.police_officer human.pedestrian.stroller human.pedestrian.wheelchair
movable_object.barrier movable_object.debris movable_object.pushable_pullable
movable_object.trafficcone static_object.bicycle_rack vehicle.bicycle vehicle.bus.bendy
vehicle.bus.rigid vehicle.car vehicle.construction vehicle.emergency.ambulance
vehicle.emergency.police vehicle.motorcycle vehicle.trailer vehicle.truck flat.driveable_surface
flat.other flat.sidewalk flat.terrain static.manmade static.other static.vegetation
vehicle.ego""".split()
ATTRIBUTES = """vehicle.moving vehicle.stopped vehicle.parked cycle.with_rider cycle.without_rider
pedestrian.sitting_lying_down pedestrian.standing pedestrian.moving""".split()
VISIBILITY = {'1': 'v0-40', '2': 'v40-60', '3': 'v60-80', '4': 'v80-100'}
NAMES = (
    'category',
    'attribute',
    'visibility',
    'instance',
    'sensor',
    'calibrated_sensor',
    'ego_pose',
    'log',
    'scene',
    'sample',
    'sample_data',
    'sample_annotation',
    'map',
)


def token(*key) -> str:
    """32 hexadecimal digits for a key."""
    return hashlib.md5('/'.join(map(str, key)).encode(), usedforsecurity=False).hexdigest()


def map_file() -> str:
    """The mask of the map, in the drive's folder."""
    return f'maps/{MASK}'


def attribute(category: str, moving: bool, parked: bool) -> list[str]:
    """Tokens of what is said about an agent: one, or none for things."""
    if category in ('vehicle.bicycle', 'vehicle.motorcycle'):
        name = 'cycle.without_rider' if parked else 'cycle.with_rider'
    elif category.startswith('vehicle'):
        name = 'vehicle.parked' if parked else 'vehicle.moving' if moving else 'vehicle.stopped'
    elif category.startswith('human'):
        name = 'pedestrian.moving' if moving else 'pedestrian.standing'
    else:
        return []
    return [token('attribute', name)]


def sensor_tokens(scene: str, channel: str) -> str:
    """Token of the calibrated sensor of a scene."""
    return token('calibrated_sensor', scene, channel)


def fixed_tables(cameras: list[Camera], scenes: list[str]) -> dict[str, list[dict]]:
    """The tables that don't depend on what happens."""
    channels = [c.channel for c in cameras] + [LIDAR]
    logs = [
        dict(
            token=token('log', s),
            logfile=f'toy-{s}',
            vehicle='toy',
            date_captured='2018-08-01',
            location=LOCATION,
        )
        for s in scenes
    ]
    return dict(
        category=[
            dict(token=token('category', n), name=n, description='', index=i)
            for i, n in enumerate(CATEGORIES)
        ],
        attribute=[dict(token=token('attribute', n), name=n, description='') for n in ATTRIBUTES],
        visibility=[
            dict(token=k, level=v, description=f'visibility of the whole object is {v[1:]}%')
            for k, v in VISIBILITY.items()
        ],
        sensor=[
            dict(token=token('sensor', c), channel=c, modality='lidar' if c == LIDAR else 'camera')
            for c in channels
        ],
        log=logs,
        map=[
            dict(
                token=token('map'),
                category='semantic_prior',
                filename=map_file(),
                log_tokens=[log['token'] for log in logs],
            )
        ],
    )


def calibration(scene: str, cameras: list[Camera]) -> list[dict]:
    """Rows of calibrated_sensor for a scene."""
    rows = [
        dict(
            token=sensor_tokens(scene, c.channel),
            sensor_token=token('sensor', c.channel),
            translation=c.position.tolist(),
            rotation=quaternion(c.rotation),
            camera_intrinsic=c.intrinsic.tolist(),
        )
        for c in cameras
    ]
    lidar = dict(
        token=sensor_tokens(scene, LIDAR),
        sensor_token=token('sensor', LIDAR),
        translation=LIDAR_POSITION.tolist(),
        rotation=list(map(float, LIDAR_ROTATION.elements)),
        camera_intrinsic=[],
    )
    return [*rows, lidar]


def link(rows: list[dict]) -> None:
    """Sets ``prev`` and ``next`` of rows that follow each other."""
    for before, row, after in zip([None, *rows[:-1]], rows, [*rows[1:], None], strict=True):
        row['prev'] = before['token'] if before else ''
        row['next'] = after['token'] if after else ''


def write(folder: FilePath, tables: dict[str, list[dict]]) -> None:
    """Writes all tables into a folder."""
    for name in NAMES:
        text = json.dumps(tables[name], indent=0)
        (folder / f'{name}.json').write_text(text, encoding='utf-8')
