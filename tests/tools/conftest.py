"""Running the tools, as processes and in this one; one tiny trained checkpoint for all tests."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / 'projects/configs/ViT/vit_tiny_digits.py')
VAD_CONFIG = str(ROOT / 'projects/configs/VAD/VAD_nano_toy.py')
#: A ViT of two layers on a few hundred digits: seconds instead of minutes.
SMALL = (
    'model.model_kwargs.depth=2',
    'model.model_kwargs.embed_dim=64',
    'model.model_kwargs.num_heads=4',
    'train_dataloader.dataset.indices=256',
    'val_dataloader.dataset.indices=128',
    'test_dataloader.dataset.indices=128',
)
QUICK = ('prune_cfg.profile.seconds=0.1', 'prune_cfg.profile.batch_size=2')
TWO_RANKS = ('-m', 'torch.distributed.run', '--nproc_per_node=2', '--standalone')


@dataclass
class Ended:
    """How a tool ended.

    Attributes:
        code: Exit code.
        out: What it printed, both streams in one.
        err: Its standard error.
    """

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines of standard error that aren't log lines or warnings."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        log = re.compile(r'\d\d/\d\d \d\d:\d\d:\d\d|.*Warning: |  \w+|\s*warnings\.warn')
        return [line for line in lines if not log.match(line)]


@pytest.fixture(scope='session')
def run_tool():
    """``run_tool('train', *args, ranks=2)``: a real process, which must end well unless told."""

    def run(name: str, *args, ranks: int = 1, cwd=None, code: int | None = 0, env=()) -> Ended:
        launch = TWO_RANKS if ranks == 2 else ()
        command = [sys.executable, *launch, str(ROOT / f'tools/{name}.py'), *map(str, args)]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1' if ranks == 2 else '2', **dict(env)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=cwd, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the launcher's workers too
            raise
        ended = Ended(process.returncode, out + err, err)
        assert code is None or ended.code == code, ended.out[-4000:]
        return ended

    return run


def kill_at(pattern: str, name: str, *args: str) -> None:
    """Run a tool and kill it with SIGKILL as soon as a line of its output fits ``pattern``."""
    command = [sys.executable, str(ROOT / f'tools/{name}.py'), *map(str, args)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '2'}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    for line in process.stdout:
        if re.search(pattern, line):
            break
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.fixture
def call_tool(capfd, monkeypatch):
    """``call_tool('train', *args)``: the tool's ``main`` in this process, through ``cli.run``."""

    def call(name: str, *args) -> Ended:
        from mmengine.logging import MMLogger
        from mmengine.runner.checkpoint import CheckpointLoader

        from projects.prune_plugin import cli

        spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        schemes = dict(CheckpointLoader._schemes)
        MMLogger._instance_dict.clear()  # their streams belong to an earlier capture
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as left:
                cli.run(module.main, list(map(str, args)))
        finally:
            CheckpointLoader._schemes = schemes
        captured = capfd.readouterr()
        return Ended(left.value.code, captured.out + captured.err, captured.err)

    return call


@pytest.fixture(scope='session')
def trained(run_tool, tmp_path_factory) -> Path:
    """The work directory of a dense training of two epochs."""
    folder = tmp_path_factory.mktemp('dense') / 'work'
    options = (*SMALL, 'train_cfg.max_epochs=2')
    run_tool('train', CONFIG, '--work-dir', folder, '--cfg-options', *options)
    return folder


@pytest.fixture(scope='session')
def checkpoint(trained) -> Path:
    """The dense checkpoint."""
    return trained / 'epoch_2.pth'


def options(*more: str) -> tuple[str, ...]:
    """``--cfg-options`` of the small model, and more."""
    return ('--cfg-options', *SMALL, *QUICK, *more)


def vad_options(data_root: Path, *more: str) -> tuple[str, ...]:
    """``--cfg-options`` for a drive of 320 x 180 pixels: images of 128 x 72, and a smaller model."""
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    head = 'model.pts_bbox_head'
    return (
        '--cfg-options',
        *(f'{loader}.dataset.data_root={data_root}' for loader in loaders),
        f'{head}.num_query=20',
        f'{head}.map_num_vec=8',
        f'{head}.bbox_coder.max_num=20',
        f'{head}.map_bbox_coder.max_num=8',
        'train_cfg.val_interval=100',
        'default_hooks.logger.interval=1',
        *more,
    )


@pytest.fixture(scope='session')
def vad_trained(run_tool, toy_root, tmp_path_factory) -> Path:
    """The work directory of three epochs on one process."""
    folder = tmp_path_factory.mktemp('vad') / 'work'
    run_tool('train', VAD_CONFIG, '--work-dir', folder,
             *vad_options(toy_root, 'train_cfg.max_epochs=3'))  # fmt: skip
    return folder
