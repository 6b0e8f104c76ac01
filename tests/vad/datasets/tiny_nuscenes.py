"""A nuScenes folder of two scenes and empty image files, for testing what reads its tables."""

import json
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

CAMERAS = 'FRONT FRONT_RIGHT FRONT_LEFT BACK BACK_LEFT BACK_RIGHT'.split()
SENSORS = (*(f'CAM_{name}' for name in CAMERAS), 'LIDAR_TOP')
CATEGORIES = ('animal', 'human.pedestrian.adult', 'vehicle.car', 'vehicle.emergency.police')
SCENES = {'scene-0061': 'singapore-onenorth', 'scene-0103': 'boston-seaport'}
STEP = 500_000
#: Positions are some hundred metres from the map's origin, as real ones are.
ORIGIN = np.array([600.0, 1600.0, 0.0])
SPEED, YAW_RATE = 6.0, 0.25


class Tables(dict):
    """Rows of each table; ``add`` gives a row its token."""

    def add(self, table: str, **row) -> str:
        rows = self.setdefault(table, [])
        token = f'{table}-{len(rows)}'
        rows.append(dict(token=token, **row))
        return token


def ego_pose(seconds: float, sign: int) -> tuple[np.ndarray, Quaternion]:
    """A bend, to the left for sign 1, slightly tilted."""
    angle = 0.4 + sign * YAW_RATE * seconds
    centre = ORIGIN + sign * SPEED / YAW_RATE * np.array([-np.sin(0.4), np.cos(0.4), 0])
    offset = sign * SPEED / YAW_RATE * np.array([np.sin(angle), -np.cos(angle), 0])
    tilt = Quaternion(axis=[1, 2, 0], radians=0.01 * np.sin(3 * seconds))
    return centre + offset, Quaternion(axis=[0, 0, 1], radians=angle) * tilt


def _can_bus(folder: Path, scene: str, start: int, sign: int, frames: int) -> None:
    poses, steering = [], []
    for n in range(0, frames * 25, 3):
        seconds = n / 50 - 0.01
        position, rotation = ego_pose(seconds, sign)
        poses.append(
            dict(
                accel=[0.1 * n, 0.2, 9.8], orientation=list(rotation), pos=list(position),
                rotation_rate=[0, 0.01, sign * YAW_RATE], utime=start + int(seconds * 1e6),
                vel=[SPEED + 0.01 * n, 0, 0],
            )
        )  # fmt: skip
        steering.append(dict(utime=start + 7_000 + int(seconds * 1e6), value=0.3 + 0.001 * n))
    (folder / f'{scene}_pose.json').write_text(json.dumps(poses))
    (folder / f'{scene}_steeranglefeedback.json').write_text(json.dumps(steering))


def _scene(root: Path, tables: Tables, name: str, number: int, frames: int, rng) -> None:
    start = 1_532_402_927_000_000 + number * 10**9
    sign = 1 - 2 * number
    log = tables.add(
        'log', logfile=name, vehicle='n1', date_captured='2018-07-24', location=SCENES[name]
    )
    tables['map'][0]['log_tokens'].append(log)
    first = len(tables.get('sample', []))
    scene = tables.add(
        'scene', log_token=log, nbr_samples=frames, name=name, description='',
        first_sample_token=f'sample-{first}', last_sample_token=f'sample-{first + frames - 1}',
    )  # fmt: skip

    def neighbours(table: str, index: int, low: int, high: int) -> dict:
        return dict(
            prev=f'{table}-{index - 1}' if index > low else '',
            next=f'{table}-{index + 1}' if index < high else '',
        )

    mounts = {}
    for k, sensor in enumerate(SENSORS):
        if sensor == 'LIDAR_TOP':
            turn = Quaternion(axis=[0, 0, 1], degrees=-90) * Quaternion(axis=[1, 1, 0], degrees=1)
            intrinsic, place = [], [0.94, 0.01, 1.84]
        else:
            turn = Quaternion(axis=[0, 0, 1], degrees=-60 * k)
            turn = turn * Quaternion(matrix=np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]))
            intrinsic = [[1266.0 + k, 0, 816], [0, 1266.0 + k, 491], [0, 0, 1]]
            place = [1.7 - 0.3 * k, 0.1 * k, 1.5]
        mounts[sensor] = tables.add(
            'calibrated_sensor', sensor_token=f'sensor-{k}', translation=place,
            rotation=list(turn), camera_intrinsic=intrinsic,
        )  # fmt: skip
    for frame in range(frames):
        time = start + frame * STEP
        sample = tables.add(
            'sample', timestamp=time, scene_token=scene,
            **neighbours('sample', first + frame, first, first + frames - 1),
        )  # fmt: skip
        for k, sensor in enumerate(SENSORS):
            taken = time + 4_000 * k - 20_000  # microseconds: no two sensors fire together
            position, rotation = ego_pose((taken - start) / 1e6, sign)
            pose = tables.add(
                'ego_pose', timestamp=taken, translation=list(position), rotation=list(rotation)
            )
            camera = sensor != 'LIDAR_TOP'
            file = f'samples/{sensor}/{name}__{frame}.{"jpg" if camera else "pcd.bin"}'
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
            index = len(tables.get('sample_data', []))
            links = {
                key: f'sample_data-{index + way * len(SENSORS)}' if inside else ''
                for key, way, inside in (('prev', -1, frame > 0), ('next', 1, frame < frames - 1))
            }
            tables.add(
                'sample_data', sample_token=sample, ego_pose_token=pose, filename=file,
                calibrated_sensor_token=mounts[sensor], timestamp=taken, is_key_frame=True,
                fileformat='jpg', height=900, width=1600, **links,
            )  # fmt: skip
    _agents(tables, first, frames, rng)
    _can_bus(root / 'can_bus', name, start, sign, frames)


def _agents(tables: Tables, first: int, frames: int, rng) -> None:
    """Tracks that turn, stand, appear late and end early."""
    for n in range(8):
        category = n % len(CATEGORIES)
        index = len(tables.get('sample_annotation', []))
        begin = 0 if n < 5 else int(rng.integers(0, frames - 1))
        end = frames if n < 4 else int(rng.integers(begin + 1, frames + 1))
        instance = tables.add(
            'instance', category_token=f'category-{category}', nbr_annotations=end - begin,
            first_annotation_token=f'sample_annotation-{index}',
            last_annotation_token=f'sample_annotation-{index + end - begin - 1}',
        )  # fmt: skip
        start, yaw = ORIGIN + [*rng.uniform(-20, 20, 2), 1], rng.uniform(-4, 4)
        speed, turn = (0 if n == 0 else rng.uniform(0, 9)), rng.uniform(-0.5, 0.5)
        for frame in range(begin, end):
            yaw += 0.5 * turn
            start = start + 0.5 * speed * np.array([np.cos(yaw), np.sin(yaw), 0.02])
            at = index + frame - begin
            tables.add(
                'sample_annotation', sample_token=f'sample-{first + frame}', instance_token=instance,
                visibility_token='4', attribute_tokens=[], translation=list(start),
                size=[1.9, 4.5, 1.7], rotation=list(Quaternion(axis=[0, 0, 1], radians=yaw)),
                num_lidar_pts=int(rng.integers(0, 3)), num_radar_pts=int(rng.integers(0, 2)),
                prev=f'sample_annotation-{at - 1}' if frame > begin else '',
                next=f'sample_annotation-{at + 1}' if frame < end - 1 else '',
            )  # fmt: skip


def town() -> dict:
    """A map expansion: two roads that cross, one with a hole, a crossing, and dividers."""
    layers = (
        'polygon line node drivable_area road_segment road_block lane ped_crossing walkway stop_line '
        'carpark_area road_divider lane_divider traffic_light lane_connector'
    ).split()
    tables = Tables({name: [] for name in layers})

    def nodes(points) -> list[str]:
        return [
            tables.add('node', x=float(x + ORIGIN[0]), y=float(y + ORIGIN[1])) for x, y in points
        ]

    def area(layer: str, points, holes=(), **row) -> None:
        polygon = tables.add(
            'polygon', exterior_node_tokens=nodes(points),
            holes=[dict(node_tokens=nodes(hole)) for hole in holes],
        )  # fmt: skip
        tables.add(layer, polygon_token=polygon, **row)

    def rectangle(x0, y0, x1, y1) -> list[tuple[float, float]]:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]

    hole = rectangle(-3, 3, -1, 4)
    area('road_segment', rectangle(-80, -8, 80, 9), [hole], is_intersection=False)
    area('road_segment', rectangle(10, -90, 22, 90), is_intersection=True)
    segments = dict(left_lane_divider_segments=[], right_lane_divider_segments=[])
    area('lane', rectangle(-60, 2, 12, 5), [hole], **segments)
    area('lane', rectangle(-70, -3.5, -40, 0), **segments)
    area('ped_crossing', rectangle(4, -8, 7, 9))
    area('ped_crossing', rectangle(6, -8, 9, 9))
    area('ped_crossing', [(0, 0), (2, 2), (2, 0), (0, 2)])  # crosses itself: not valid
    for layer, points in (
        ('road_divider', [(-70, 0.5), (0, 0.4), (70, 0.6)]),
        ('lane_divider', [(-70, 4), (8, 4.2), (6, 20), (-80, 21)]),  # leaves a patch and returns
        ('lane_divider', [(16, -80), (16.5, 0), (16, 80)]),
    ):
        tables.add(layer, line_token=tables.add('line', node_tokens=nodes(points)))
    return dict(
        tables, arcline_path_3={}, connectivity={}, canvas_edge=[2000.0, 2000.0], version='1.3'
    )


def write_tiny_nuscenes(root: Path, frames: int = 9) -> Path:
    """Write the folder: one training scene that bends left, one for validation that bends right."""
    rng = np.random.default_rng(0)
    for folder in ('v1.0-mini', 'can_bus', 'maps/expansion'):
        (root / folder).mkdir(parents=True)
    (root / 'maps/mask.png').touch()
    tables = Tables(attribute=[], visibility=[], sample_annotation=[])
    tables.add('map', category='semantic_prior', filename='maps/mask.png', log_tokens=[])
    for name in CATEGORIES:
        tables.add('category', name=name, description='')
    for name in SENSORS:
        kind = 'lidar' if name == 'LIDAR_TOP' else 'camera'
        tables.add('sensor', channel=name, modality=kind)
    for number, name in enumerate(SCENES):
        _scene(root, tables, name, number, frames, rng)
        (root / f'maps/expansion/{SCENES[name]}.json').write_text(json.dumps(town()))
    for name, rows in tables.items():
        (root / f'v1.0-mini/{name}.json').write_text(json.dumps(rows))
    return root
