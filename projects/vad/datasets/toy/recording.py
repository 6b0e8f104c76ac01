"""One scene of the toy drive from end to end: play it, drive through it, write what was recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath

import cv2
import numpy as np

from . import canbus, lidar
from .place import Place
from .render import Renderer
from .rig import LIDAR, cameras, yaw_quaternion
from .scenarios import Scenario, play
from .scenery import Thing, scenery
from .tables import attribute, calibration, link, sensor_tokens, token

STEP = 0.5  # seconds between key frames
ANNOTATED = 75.0  # metres round the ego


@dataclass(frozen=True)
class Job:
    """What to record.

    Args:
        root: Folder of the drive.
        scene: Its name.
        kind: What happens.
        place: Where and when.
        seed: Numbers that fix the chance.
        frames: Key frames.
        size: width, height of the pictures.
    """

    root: FilePath
    scene: str
    kind: str
    place: Place
    seed: list[int]
    frames: int
    size: tuple[int, int]


class Recording:
    """The rows and files of one scene."""

    def __init__(self, job: Job):
        self.job, self.place = job, job.place
        self.scenario: Scenario = play(job.kind, job.seed, (job.frames - 1) * STEP)
        things = scenery(self.scenario.world, np.random.default_rng([*job.seed, 3]))
        self.cameras = cameras(job.size)
        self.renderer = Renderer(self.scenario, things, self.cameras, job.seed)
        self.obstacles = np.array([_solid_box(t) for t in things]).reshape(-1, 7)
        self.rows: dict[str, list[dict]] = {
            k: [] for k in ('ego_pose', 'sample', 'sample_data', 'sample_annotation', 'instance')
        }
        self.rows['calibrated_sensor'] = calibration(job.scene, self.cameras)
        self.tracks: dict[int, list[dict]] = {}

    def run(self, done: Callable[[], None] | None = None) -> dict[str, list[dict]]:
        """Writes the files, calls ``done`` after each key frame, and returns the rows by table."""
        job = self.job
        for frame in range(job.frames):
            self._frame(frame)
            if done:
                done()
        link(self.rows['sample'])
        for channel in [c.channel for c in self.cameras] + [LIDAR]:
            own = sensor_tokens(job.scene, channel)
            link([r for r in self.rows['sample_data'] if r['calibrated_sensor_token'] == own])
        self._close_tracks()
        samples = self.rows['sample']
        self.rows['scene'] = [
            dict(
                token=token('scene', job.scene),
                log_token=token('log', job.scene),
                name=job.scene,
                description=f'Toy drive: {job.kind}',
                nbr_samples=len(samples),
                first_sample_token=samples[0]['token'],
                last_sample_token=samples[-1]['token'],
            )
        ]
        canbus.write(
            job.root / 'can_bus',
            job.scene,
            self.scenario.ego,
            self.place,
            (job.frames - 1) * STEP,
            job.seed,
        )
        return self.rows

    def _frame(self, frame: int) -> None:
        job, t = self.job, frame * STEP
        utime = self.place.at(t)
        sample = token('sample', job.scene, frame)
        self.rows['sample'].append(
            dict(token=sample, timestamp=utime, scene_token=token('scene', job.scene))
        )
        pose = self._data(sample, LIDAR, frame, utime, 'pcd', 'pcd.bin', (0, 0))
        boxes = np.array([_box(a, t) for a in self.scenario.agents[1:]]).reshape(-1, 7)
        rng = np.random.default_rng([*job.seed, 11, frame])
        points, hits = lidar.sweep(pose, np.concatenate([boxes, self.obstacles]), rng)
        points.tofile(job.root / self.rows['sample_data'][-1]['filename'])
        solids, shadows = self.renderer.frame(t)
        pixels = np.zeros((len(self.scenario.agents), 2), int)
        for camera in self.cameras:
            at = utime + camera.delay
            pose = self._data(sample, camera.channel, frame, at, 'jpg', 'jpg', camera.size)
            image, _, seen = self.renderer.draw(camera.channel, pose, solids, shadows)
            for number, counts in seen.items():
                pixels[number] += counts
            path = job.root / self.rows['sample_data'][-1]['filename']
            if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90]):
                raise OSError(f'{path} could not be written')
        self._annotate(sample, frame, t, pose, hits, pixels)

    def _data(self, sample: str, channel: str, frame: int, utime: int, form, ending, size):
        """Adds the rows of a sensor's record; gives the ego's x, y, yaw at that time."""
        job = self.job
        m = canbus.ego_motion(self.scenario.ego, (utime - self.place.utime) / 1e6)
        x, y = self.place.to_map([m['x'], m['y']])
        key = token('sample_data', job.scene, channel, frame)
        self.rows['ego_pose'].append(
            dict(
                token=key,
                timestamp=utime,
                rotation=yaw_quaternion(m['yaw'] + self.place.yaw),
                translation=[float(x), float(y), 0.0],
            )
        )
        self.rows['sample_data'].append(
            dict(
                token=key,
                sample_token=sample,
                ego_pose_token=key,
                calibrated_sensor_token=sensor_tokens(job.scene, channel),
                timestamp=utime,
                fileformat=form,
                is_key_frame=True,
                height=size[1],
                width=size[0],
                filename=f'samples/{channel}/toy-{job.scene}__{channel}__{utime}.{ending}',
            )
        )
        return m['x'], m['y'], m['yaw']

    def _annotate(self, sample, frame, t, pose, hits, pixels) -> None:
        for number, agent in enumerate(self.scenario.agents):
            x, y, yaw = (float(v) for v in agent.pose(t))
            if number == 0 or np.hypot(x - pose[0], y - pose[1]) > ANNOTATED:
                continue
            mx, my = self.place.to_map([x, y])
            share = pixels[number, 0] / max(pixels[number, 1], 1)
            level = str(int(np.searchsorted([0.4, 0.6, 0.8], share, side='right')) + 1)
            moving = float(agent.motion(t)[1]) > 0.3
            row = dict(
                token=token('annotation', self.job.scene, number, frame),
                sample_token=sample,
                instance_token=token('instance', self.job.scene, number),
                visibility_token=level,
                attribute_tokens=attribute(agent.category, moving, agent.cruise <= 0),
                translation=[float(mx), float(my), agent.size[2] / 2],
                size=list(agent.size),
                rotation=yaw_quaternion(yaw + self.place.yaw),
                num_lidar_pts=int(hits[number - 1]),
                num_radar_pts=0,
            )
            self.tracks.setdefault(number, []).append(row)

    def _close_tracks(self) -> None:
        """Keeps the tracks that the LiDAR ever saw, links them and adds their instances."""
        for number, rows in self.tracks.items():
            seen = [i for i, r in enumerate(rows) if r['num_lidar_pts'] > 0]
            if not seen:
                continue
            rows = rows[seen[0] : seen[-1] + 1]
            link(rows)
            self.rows['sample_annotation'] += rows
            category = self.scenario.agents[number].category
            self.rows['instance'].append(
                dict(
                    token=rows[0]['instance_token'],
                    category_token=token('category', category),
                    nbr_annotations=len(rows),
                    first_annotation_token=rows[0]['token'],
                    last_annotation_token=rows[-1]['token'],
                )
            )


def _box(agent, t: float) -> list[float]:
    x, y, yaw = agent.pose(t)
    width, length, height = agent.size
    return [x, y, height / 2, length, width, height, yaw]


def _solid_box(thing: Thing) -> list[float]:
    length, width, height = thing.size
    return [thing.x, thing.y, height / 2, length, width, height, thing.yaw]
