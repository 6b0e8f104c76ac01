"""Writes the whole toy drive: scenes in parallel, then the tables, the map and its mask."""

import json
import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import cv2
from mmengine.logging import print_log
from rich.progress import Progress

from projects.prune_plugin.common.errors import UserError

from . import mapexp, mask, tables
from .place import LOCATION, TRAIN, VAL, places
from .recording import Job, Recording
from .rig import CAMERAS, LIDAR, cameras
from .scenarios import kinds
from .world import World

VERSION = 'v1.0-mini'
RECORD = 'toy.json'  # written last: the drive is finished
REVISION = 1  # of what is drawn; a finished drive of another revision isn't reused


def write_toy(
    out, seed=0, num_scenes=6, num_frames=20, image_size=(800, 450), progress=True, workers=2
) -> Path:
    """Write a toy drive that nuscenes-devkit reads as ``v1.0-mini``; same seed, same files.

    The scenes carry names of the devkit's ``mini_train`` and ``mini_val`` splits: a third of them, at
    least one and at most two, are in ``mini_val`` (none with a single scene). Annotated boxes
    belong to the key frame's time stamp and so do the agents in the pictures; cameras have ego poses
    at their own time stamps, some milliseconds beside.

    Args:
        out: Folder to write; it must not exist or be empty, or hold the same drive already.
        seed: Where chance starts, 0 or more.
        num_scenes: 1 to 10, as many as the two splits name.
        num_frames: Key frames per scene, 2 to 40, every 0.5 s.
        image_size: width, height of the pictures; they show the same at every size.
        progress: Whether to show a bar.
        workers: Processes; what is written doesn't depend on it.

    Returns:
        The folder.

    Raises:
        UserError: a value out of range, or something else is in the folder.
    """
    asked = _check(seed, num_scenes, num_frames, image_size, workers)
    out = Path(out)
    if _finished(out, asked):
        print_log(f'{out} already holds this toy drive: nothing to do', 'current', logging.INFO)
        return out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.'))
    except OSError as error:
        raise UserError(
            f'--out {out} cannot be written ({error.strerror}); name a directory that can'
        ) from error
    try:
        _write(stage, asked, progress, workers)
        os.chmod(stage, 0o755)
        if out.is_dir():
            out.rmdir()
        os.replace(stage, out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    print_log(f'toy drive of {num_scenes} scenes written to {out}', 'current', logging.INFO)
    return out


def _check(seed, num_scenes, num_frames, image_size, workers) -> dict:
    most = len(TRAIN) + len(VAL)
    for key, value, low, high in (
        ('seed', seed, 0, 2**31),
        ('num_scenes', num_scenes, 1, most),
        ('num_frames', num_frames, 2, 40),
        ('workers', workers, 1, 64),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(
                f'{key} {value!r} is not valid; it is a whole number from {low} to {high}'
            )
    size = tuple(image_size)
    if len(size) != 2 or not all(isinstance(x, int) and 32 <= x <= 3200 for x in size):
        raise UserError(
            f'image_size {size} is not valid; it is (width, height), each 32 to 3200 pixels'
        )
    return dict(
        revision=REVISION,
        seed=seed,
        num_scenes=num_scenes,
        num_frames=num_frames,
        image_size=list(size),
    )


def _finished(out: Path, asked: dict) -> bool:
    """Whether the drive is there already; anything else there is an error."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    record = out / RECORD
    found = json.loads(record.read_text(encoding='utf-8')) if record.is_file() else None
    if found == asked:
        return True
    what = f'a toy drive with other parameters ({found})' if found else 'something else'
    raise UserError(f'--out {out} holds {what}; name an empty or new directory')


def _jobs(stage: Path, asked: dict) -> list[Job]:
    count, seed = asked['num_scenes'], asked['seed']
    val = min(max((count + 1) // 3, 1), len(VAL)) if count > 1 else 0
    val = max(val, count - len(TRAIN))
    names = [*TRAIN[: count - val], *VAL[:val]]
    stories = kinds(count - val, val, seed)
    return [
        Job(stage, name, kind, place, [seed, i], asked['num_frames'], tuple(asked['image_size']))
        for i, (name, kind, place) in enumerate(
            zip(names, stories, places(count, seed), strict=True)
        )
    ]


def _write(stage: Path, asked: dict, progress: bool, workers: int) -> None:
    for folder in (
        VERSION,
        'can_bus',
        'maps/expansion',
        *(f'samples/{c}' for c in (*CAMERAS, LIDAR)),
    ):
        (stage / folder).mkdir(parents=True)
    jobs = _jobs(stage, asked)
    with Progress(disable=not progress) as bar:
        task = bar.add_task('writing the toy drive', total=len(jobs) * asked['num_frames'])
        results = _record_all(jobs, min(workers, len(jobs)), bar, task)
    rig = cameras(tuple(asked['image_size']))
    content = tables.fixed_tables(rig, [job.scene for job in jobs])
    layers = mapexp.MapTables()
    for job, (rows, world) in zip(jobs, results, strict=True):
        layers.add(job.scene, world, job.place)
        for name, own in rows.items():
            content.setdefault(name, []).extend(own)
    tables.write(stage / VERSION, content)
    path = stage / 'maps' / 'expansion' / f'{LOCATION}.json'
    path.write_text(json.dumps(layers.content), encoding='utf-8')
    scenes = [(world, job.place) for job, (_, world) in zip(jobs, results, strict=True)]
    mask.write(stage / tables.map_file(), scenes)
    (stage / RECORD).write_text(json.dumps(asked), encoding='utf-8')


def _record(job: Job, done: Callable[[], None] | None = None) -> tuple[dict, World]:
    """Rows by table and the roads of a scene; files are written on the way."""
    recording = Recording(job)
    return recording.run(done), recording.scenario.world


def _record_all(jobs: list[Job], workers: int, bar: Progress, task) -> list[tuple[dict, World]]:
    if workers == 1 or 'fork' not in multiprocessing.get_all_start_methods():
        return [_record(job, lambda: bar.advance(task)) for job in jobs]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # before the fork: a pool of threads would not survive it
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context('fork'))
    try:
        futures = [pool.submit(_record, job) for job in jobs]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, 0.3, FIRST_COMPLETED)
            for future in finished:
                future.result()  # raises what went wrong there
            sweeps = os.scandir(jobs[0].root / 'samples' / LIDAR)
            bar.update(task, completed=sum(1 for _ in sweeps))
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)
