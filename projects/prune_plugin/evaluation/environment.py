"""Versions and hardware on which the figures of a report were measured."""

import platform
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from torch import nn

from ..common.version import __version__


def device_name(model: nn.Module | None = None) -> str:
    """Name of the device ``model`` is on; without a model, of the device that the tools use by default."""
    cuda = torch.cuda.is_available() if model is None else next(model.parameters()).is_cuda
    if cuda:
        return torch.cuda.get_device_name()
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    name = names[0] if names else platform.processor() or platform.machine()
    return f'cpu ({name})'


def environment() -> dict[str, Any]:
    """Versions of the plugin, PyTorch and Python, name of the device, and world size, for reports."""
    return {
        'version': __version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'device': device_name(),
        'world_size': dist.get_world_size(),
    }
