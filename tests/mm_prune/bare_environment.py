"""A Python that has a few packages of this one, linked, and nothing else."""

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Collection, Iterable
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make(folder: Path, names: Iterable[str], left_out: Collection[str] = ()) -> Path:
    """Make a virtual environment with the distributions ``names`` and those that they need.

    Args:
        folder: Where, a new or an empty folder.
        names: Distributions that are installed here.
        left_out: Those that stay out though others need them, with what only they need.

    Returns:
        Its Python.
    """
    venv.create(folder / 'venv', symlinks=True)
    links = folder / 'packages'
    links.mkdir()
    for distribution in with_requirements(names, left_out):
        link(distribution, links)
    (site,) = (folder / 'venv').glob('lib/python*/site-packages')
    (site / 'packages.pth').write_text(f'{links}\n')
    return folder / 'venv' / 'bin' / 'python'


def with_requirements(names: Iterable[str], left_out: Collection[str]) -> list[Distribution]:
    """The distributions ``names`` and all that they need, as far as they are installed here."""
    found: dict[str, Distribution] = {}
    todo = list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        installed = next(iter(importlib.metadata.distributions(name=name)), None)
        if name in found or name in left_out or installed is None:
            continue
        found[name] = installed
        todo += needed(installed.requires or ())
    return list(found.values())


def needed(requirements: Iterable[str]) -> list[str]:
    """Names of what is required here and now, without any extra."""
    parsed = map(Requirement, requirements)
    return [r.name for r in parsed if r.marker is None or r.marker.evaluate({'extra': ''})]


def link(distribution: Distribution, folder: Path) -> None:
    """Link a distribution's packages, modules and metadata into a folder."""
    tops = {file.parts[0] for file in distribution.files or ()} - {'..', '__pycache__'}
    for top in tops:
        if not (folder / top).exists():
            (folder / top).symlink_to(distribution.locate_file(top))


def run(python: Path | str, *args: Path | str, path: Iterable[Path], cwd: Path) -> str:
    """What a Python prints with ``path`` as its ``PYTHONPATH``; it must end well."""
    done = subprocess.run(
        [python, *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=150,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, path)), 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
