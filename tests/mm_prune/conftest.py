"""The wheel, unpacked; Pythons that have little beside what it needs; a driving repository."""

import importlib.metadata
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import bare_environment
import pytest

ROOT = Path(__file__).resolve().parents[2]


def pip(*args: Path | str, cwd: Path) -> None:
    command = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check', *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope='session')
def installed(tmp_path_factory) -> Path:
    """A folder into which pip has unpacked the wheel of a copy of this project."""
    missing = [name for name in ('pip', 'setuptools', 'wheel') if find_spec(name) is None]
    if missing:
        pytest.skip(f'a wheel needs {", ".join(missing)}')
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for package in ('mm_prune', 'projects'):
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns('__pycache__')
        )
    for file in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / file, source)
    pip('wheel', '.', '--no-deps', '--no-build-isolation', '-w', folder, cwd=source)
    (wheel,) = folder.glob('*.whl')
    pip('install', wheel, '--no-deps', '--no-index', '--target', folder / 'installed', cwd=folder)
    shutil.rmtree(source)
    return folder / 'installed'


@pytest.fixture(scope='session')
def bare_python(installed, tmp_path_factory):
    """``bare_python(*left_out)``: a Python with MMEngine and what the wheel and MMEngine need."""
    (wheel,) = importlib.metadata.distributions(name='mm-prune', path=[str(installed)])
    providers = importlib.metadata.packages_distributions()
    # MMEngine imports OpenCV without naming it.
    names = [*bare_environment.needed(wheel.requires), *providers['mmengine'], *providers['cv2']]

    def make(*left_out: str) -> Path:
        return bare_environment.make(tmp_path_factory.mktemp('bare'), names, left_out)

    return make


@pytest.fixture(scope='session')
def driving_repo(tmp_path_factory) -> Path:
    """A repository with a package ``projects`` of its own, a copy to work in."""
    folder = tmp_path_factory.mktemp('driving') / 'repo'
    source = Path(__file__).parent / 'driving_repo'
    return shutil.copytree(source, folder, ignore=shutil.ignore_patterns('__pycache__'))
