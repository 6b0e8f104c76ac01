"""What the set-up needs of the machine: checks that end in one sentence, and the facts behind them.

Runs under any Python 3, so that a too old one gets the sentence instead of a syntax error.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

CACHE_NAME = 'mm-prune'
PYTHONS = ((3, 11), (3, 12))  # the pinned numpy and pandas need 3.11
TESTED = '3.11'


class SetupError(Exception):
    """The set-up can't go on; the message says what to do."""


def cache_dir():
    """Folder of this project in the user's cache."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(root) / CACHE_NAME


def free_gb(folder):
    """Free space in GB on the disk of `folder`."""
    return shutil.disk_usage(str(folder)).free / 1e9


def memory_gb():
    """Memory in GB that programs can still take."""
    for line in Path('/proc/meminfo').read_text().splitlines():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) / 1e6
    raise SetupError('/proc/meminfo has no entry MemAvailable; this set-up needs Linux')


def check_python():
    """A Python that the pins have wheels for, able to make virtual environments."""
    have = f'{sys.version_info[0]}.{sys.version_info[1]}'
    if sys.version_info[:2] not in PYTHONS:
        known = ' or '.join(f'{major}.{minor}' for major, minor in PYTHONS)
        raise SetupError(
            f'{sys.executable} is Python {have}; the pinned packages need {known} '
            f'({TESTED} is tested): make PYTHON=python{TESTED} venv'
        )
    if have != TESTED:
        print(f'setup: Python {have} should work, {TESTED} is what is tested', flush=True)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            f'{sys.executable} has no venv module (Debian: apt-get install python3-venv)'
        ) from None


def check_compiler():
    """What mmcv's operators are compiled with: g++ and Python's headers."""
    try:
        works = subprocess.run(['g++', '--version'], stdout=subprocess.DEVNULL).returncode == 0
    except OSError:
        works = False
    if not works:
        raise SetupError('g++ is missing or does not run (Debian: apt-get install g++)')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.is_file():
        raise SetupError(
            f"Python's headers are missing, no {header} (Debian: apt-get install python3-dev)"
        )


def check_disk(folder, need, why):
    """At least `need` GB free on the disk of `folder`."""
    have = free_gb(folder)
    if have < need:
        raise SetupError(f'{why} needs about {need} GB in {folder}, {have:.1f} GB are free there')
