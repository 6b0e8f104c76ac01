"""Where the benchmarks look for data: where the configs do."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def data_folder(variable: str, name: str) -> Path:
    """What the environment's ``variable`` says, or else ``data/<name>`` of the project."""
    return Path(os.environ.get(variable) or ROOT / 'data' / name)


CIFAR10 = data_folder('CIFAR10_ROOT', 'cifar10')
WIKITEXT2 = data_folder('WIKITEXT2_ROOT', 'wikitext2')
