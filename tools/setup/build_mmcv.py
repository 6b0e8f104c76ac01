"""Put mmcv with its CPU operators into the environment of the Python that runs this.

There is no mmcv 2.1 wheel for a current torch, so it is built once from the sdist, and the wheel
is kept in the user's cache folder for the next clone. Needs g++, and torch, setuptools, wheel and
ninja in the environment.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from machine import SetupError, cache_dir, check_compiler, check_disk, memory_gb

CONSTRAINTS = Path(__file__).resolve().parents[2] / 'constraints.txt'
HEADER = 'mmcv/ops/csrc/common/pytorch_cpp_helper.hpp'
WRAPPER = Path(__file__).resolve().with_name('cxx20.sh')
BUILD_GB = 2  # the precompiled header and the objects take about 1
JOB_GB = 2  # one g++ on torch's headers peaks at about 1.2 GB
CHECK = """
import torch
from mmcv.ops import MultiScaleDeformableAttention, nms
nms(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.ones(1), 0.5)
layer = MultiScaleDeformableAttention(embed_dims=16, num_heads=2, num_levels=1, num_points=1)
layer(torch.zeros(4, 1, 16), reference_points=torch.zeros(1, 4, 1, 2),
      spatial_shapes=torch.tensor([[2, 2]]), level_start_index=torch.tensor([0]))
"""


def pinned_version() -> str:
    """The version of mmcv that constraints.txt asks for."""
    pin = re.search(r'^mmcv==(\S+)$', CONSTRAINTS.read_text(encoding='utf-8'), re.MULTILINE)
    if not pin:
        raise SetupError(f'{CONSTRAINTS} has no line mmcv==VERSION')
    return pin[1]


def wheel_folder(version: str) -> Path:
    """Cache folder of the wheel that fits this Python, torch and machine."""
    import torch

    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    key = f'mmcv-{version}-torch{torch.__version__}-{python}-{platform.machine()}'
    return cache_dir() / 'wheels' / key


def cached_wheel(folder: Path) -> Path | None:
    """The whole wheel in `folder`, or None; a broken one is removed."""
    for wheel in folder.glob('mmcv-*.whl'):
        try:
            with zipfile.ZipFile(wheel) as archive:
                if archive.testzip() is None:
                    return wheel
        except zipfile.BadZipFile:
            pass
        print(f'mmcv: the cached wheel {wheel} is damaged; building it again', flush=True)
        wheel.unlink()
    return None


def fetch_source(version: str, folder: Path, log: Path) -> Path:
    """Download and unpack the sdist; return its root."""
    command = [sys.executable, '-m', 'pip', 'download', f'mmcv=={version}', '--dest', str(folder)]
    command += ['--no-binary', ':all:', '--no-deps', '--no-build-isolation']
    with log.open('a') as out:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        ).returncode
    if code:
        raise SetupError(
            f"could not download mmcv {version}'s source; is the index reachable? Log: {log}"
        )
    shutil.unpack_archive(folder / f'mmcv-{version}.tar.gz', folder)
    return folder / f'mmcv-{version}'


def show_progress(done: int, total: int, started: float) -> None:
    """One line that moves on a terminal, every tenth step otherwise."""
    text = f'mmcv: compiled {done} of {total} files, {time.time() - started:.0f} s'
    if sys.stdout.isatty():
        print(f'\r{text}', end='\n' if done == total else '', flush=True)
    elif done == total or done % 10 == 0:
        print(text, flush=True)


def compile_wheel(source: Path, target: Path, log: Path) -> Path:
    """Build the wheel of `source` into the folder `target`."""
    compiler = shutil.copy(WRAPPER, source)  # the clone's own path may hold spaces
    room = int(memory_gb() // JOB_GB)
    jobs = os.environ.get('MAX_JOBS') or max(1, min(len(os.sched_getaffinity(0)), room))
    env = dict(
        os.environ,
        CXX=str(compiler),
        PCH_HEADER=str(source / HEADER),
        MAX_JOBS=str(jobs),
        MMCV_WITH_OPS='1',
        CUDA_VISIBLE_DEVICES='',  # CPU operators only, on a machine with GPUs too
        PYTHONUNBUFFERED='1',
    )
    command = [sys.executable, '-m', 'pip', 'wheel', '-v', '--no-deps', '--no-build-isolation']
    command += ['--wheel-dir', str(target), str(source)]
    started = time.time()
    with log.open('a') as out:
        process = subprocess.Popen(
            command,
            env=env,
            text=True,
            errors='replace',
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for line in process.stdout:
            out.write(line)
            step = re.match(r'\s*\[(\d+)/(\d+)\] ', line)
            if step:
                show_progress(int(step[1]), int(step[2]), started)
        code = process.wait()
    wheels = list(target.glob('mmcv-*.whl'))
    if code or not wheels:
        print(flush=True)
        raise SetupError(f'building mmcv failed: {cause(log)} Log: {log}')
    return wheels[0]


def cause(log: Path) -> str:
    """What to do about a failed build, from the words in its log."""
    text = log.read_text(errors='replace')
    known = {
        'No space left on device': 'the disk is full; make room or set TMPDIR to another folder.',
        'Python.h: No such file': "Python's headers are missing (Debian: apt-get install "
        'python3-dev).',
        'Killed signal': 'the compiler ran out of memory; close other programs, or set MAX_JOBS=1.',
    }
    for word, advice in known.items():
        if word in text:
            return advice
    errors = [line.strip() for line in text.splitlines() if re.search(r': (fatal )?error: ', line)]
    return f'{errors[0]}.' if errors else 'its last lines may tell why.'


def build(version: str, folder: Path) -> Path:
    """Build the wheel and move it into `folder`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(folder.suffix + '.log')
    log.write_text('')
    started = time.time()
    check_compiler()
    with tempfile.TemporaryDirectory(prefix='mmcv-build-') as temporary:
        work = Path(temporary)
        check_disk(work, BUILD_GB, 'building mmcv (TMPDIR says where)')
        print('mmcv: building its CPU operators (once per machine, some minutes)', flush=True)
        print(f'mmcv: log in {log}', flush=True)
        wheel = compile_wheel(fetch_source(version, work, log), work / 'wheel', log)
        part = folder / f'.{wheel.name}.{os.getpid()}'
        shutil.copyfile(wheel, part)
        os.replace(part, folder / wheel.name)
    print(f'mmcv: built in {time.time() - started:.0f} s', flush=True)
    return folder / wheel.name


def main() -> None:
    version = pinned_version()
    folder = wheel_folder(version)
    wheel = cached_wheel(folder)
    if wheel:
        print(f'mmcv: wheel from {folder}', flush=True)
    else:
        wheel = build(version, folder)
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--force-reinstall']
    if subprocess.run([*pip, str(wheel)], stdin=subprocess.DEVNULL).returncode:
        raise SetupError(f'pip could not install {wheel}')
    if subprocess.run([sys.executable, '-c', CHECK], stdin=subprocess.DEVNULL).returncode:
        raise SetupError(f"mmcv's operators do not load; remove {folder} and run again")


if __name__ == '__main__':
    try:
        main()
    except SetupError as error:
        sys.exit(f'setup: {error}')
    except KeyboardInterrupt:
        sys.exit('setup: interrupted')
