"""What the tests of the tools share: configs, options, how a tool ended, and a kill."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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
        log = re.compile(r'\d\d/\d\d \d\d:\d\d:\d\d|.*Warning: |warning: |  \w+|\s*warnings\.warn')
        return [line for line in lines if not log.match(line)]


def kill_at(pattern: str, name: str, *args: str, threads: int = 2) -> None:
    """Run a tool and kill it with SIGKILL as soon as a line of its output fits ``pattern``."""
    command = [sys.executable, str(ROOT / f'tools/{name}.py'), *map(str, args)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': str(threads)}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    for line in process.stdout:
        if re.search(pattern, line):
            break
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


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
