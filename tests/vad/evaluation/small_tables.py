"""nuScenes tables of one scene, written by hand: true boxes whose fate is known."""

import json
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

VERSION = 'v1.0-mini'
STEP = 500_000
#: The vehicle drives north (global y) and the lidar looks where the vehicle does.
EGO = dict(translation=[100.0, 200.0, 0.0], rotation=list(Quaternion(axis=[0, 0, 1], degrees=90)))
LIDAR = dict(translation=[0.9, 0.0, 1.8], rotation=list(Quaternion(axis=[0, 0, 1], degrees=-90)))
#: Category, attribute, place in the vehicle's frame (ahead, left), points, metres per step ahead.
BOXES = [
    ('vehicle.car', 'vehicle.moving', (25, 3), 5, 3.0),  # out of range along global axes
    ('vehicle.car', 'vehicle.parked', (-10, -4), 5, 0.0),
    ('vehicle.car', 'vehicle.parked', (8, -6), 0, 0.0),  # no points: does not count
    ('vehicle.car', 'vehicle.parked', (4, 22), 9, 0.0),  # in range along global axes alone
    ('human.pedestrian.adult', 'pedestrian.standing', (3, 12), 2, 0.0),
    ('movable_object.trafficcone', '', (6, -2), 2, 0.0),
    ('vehicle.bicycle', 'cycle.without_rider', (12, 5), 4, 0.0),  # stands in a rack
    ('static_object.bicycle_rack', '', (12, 5), 4, 0.0),
    ('animal', '', (1, 9), 4, 0.0),
]
SIZE = [2.0, 4.0, 1.6]


def matrix(pose: dict) -> np.ndarray:
    found = Quaternion(pose['rotation']).transformation_matrix
    found[:3, 3] = pose['translation']
    return found


def annotation(number: int, frame: int, samples: int = 2) -> dict:
    category, attribute, (ahead, left), points, speed = BOXES[number]
    place = matrix(EGO) @ [ahead + speed * (frame % 2), left, 0.8, 1.0]
    return dict(
        token=f'box-{number}-{frame}', sample_token=f'sample-{frame}', visibility_token='4',
        instance_token=f'instance-{number}', attribute_tokens=[attribute] if attribute else [],
        translation=list(place[:3]), size=SIZE, rotation=EGO['rotation'], num_lidar_pts=points,
        num_radar_pts=0, prev=f'box-{number}-{frame - 1}' if frame else '',
        next=f'box-{number}-{frame + 1}' if frame < samples - 1 else '',
    )  # fmt: skip


def write(root: Path, samples: int = 2) -> Path:
    """Samples half a second apart in front of a vehicle that stands; movers go there and back."""
    names = sorted({box[0] for box in BOXES})
    attributes = sorted({box[1] for box in BOXES} - {''})
    frames = range(samples)
    last = samples - 1
    tables = dict(
        category=[dict(token=name, name=name, description='') for name in names],
        attribute=[dict(token=name, name=name, description='') for name in attributes],
        visibility=[dict(token='4', level='v80-100', description='')],
        instance=[
            dict(
                token=f'instance-{n}', category_token=box[0], nbr_annotations=samples,
                first_annotation_token=f'box-{n}-0', last_annotation_token=f'box-{n}-{last}',
            )
            for n, box in enumerate(BOXES)
        ],
        sensor=[dict(token='lidar', channel='LIDAR_TOP', modality='lidar')],
        calibrated_sensor=[dict(token='mount', sensor_token='lidar', camera_intrinsic=[], **LIDAR)],
        ego_pose=[dict(token='pose', timestamp=0, **EGO)],
        log=[dict(token='log', logfile='', vehicle='', date_captured='', location='somewhere')],
        scene=[
            dict(
                token='scene', log_token='log', nbr_samples=samples, first_sample_token='sample-0',
                last_sample_token=f'sample-{last}', name='scene-1', description='',
            )
        ],
        sample=[
            dict(
                token=f'sample-{t}', timestamp=t * STEP, scene_token='scene',
                prev=f'sample-{t - 1}' if t else '', next=f'sample-{t + 1}' if t < last else '',
            )
            for t in frames
        ],
        sample_data=[
            dict(
                token=f'sweep-{t}', sample_token=f'sample-{t}', ego_pose_token='pose',
                calibrated_sensor_token='mount', timestamp=t * STEP, fileformat='pcd',
                is_key_frame=True, height=0, width=0, filename='', prev='', next='',
            )
            for t in frames
        ],
        sample_annotation=[annotation(n, t, samples) for t in frames for n in range(len(BOXES))],
        map=[dict(token='map', log_tokens=['log'], category='semantic_prior', filename='mask.png')],
    )  # fmt: skip
    (root / VERSION).mkdir(parents=True)
    (root / 'mask.png').touch()
    for name, rows in tables.items():
        (root / VERSION / f'{name}.json').write_text(json.dumps(rows))
    return root
