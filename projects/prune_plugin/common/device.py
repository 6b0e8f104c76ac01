"""Where models run."""

import gc
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from .errors import UserError

#: A folder for each GPU, where NVIDIA's driver runs.
GPUS_OF_DRIVER = Path('/proc/driver/nvidia/gpus')


def best_device() -> str:
    """The device that the tools take: a GPU if there is one."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def free_unused_memory() -> None:
    """Give the GPU's memory that nothing uses any more to what comes next."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def check_visible_gpus() -> None:
    """Compare ``CUDA_VISIBLE_DEVICES``, which ``--gpu-ids`` narrows, with the GPUs that there are.

    CUDA takes no notice of a number without a GPU, nor of any that follows it: what asks for GPU 3 of two
    would run on CPUs. Where there is no GPU at all, everything does, and this says nothing.

    Raises:
        UserError: the variable names more GPUs than can be used.
    """
    named = os.environ.get('CUDA_VISIBLE_DEVICES', '')
    wanted = re.findall(r'(?:^|,)\s*(\d+|GPU-|MIG-)', named)
    there = len(list(GPUS_OF_DRIVER.iterdir())) if GPUS_OF_DRIVER.is_dir() else 0
    count = torch.cuda.device_count()
    if there and torch.version.cuda and count < len(wanted):
        raise UserError(
            f'CUDA_VISIBLE_DEVICES, which --gpu-ids sets, is {named!r}, of which CUDA can use {count}; '
            f'this machine has the GPUs 0 to {there - 1}'
        )


def check_asked_gpus(gpu_ids: Sequence[int] | None) -> str | None:
    """Compare ``--gpu-ids`` with the GPUs that there are.

    Returns:
        A warning, where there is none and CPUs do the work; else None.

    Raises:
        UserError: see :func:`check_visible_gpus`.
    """
    check_visible_gpus()
    if gpu_ids and torch.cuda.device_count() == 0:
        asked = ' '.join(map(str, gpu_ids))
        return f'--gpu-ids {asked}: no GPU can be used here; going on with CPUs'
    return None
