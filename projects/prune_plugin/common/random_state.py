"""Seeding, and restoring the states of the random number generators."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def torch_states() -> dict[str, Tensor]:
    """The states of PyTorch's generators on the CPU and on the current GPU, by type of device."""
    states = {'cpu': torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_torch_states(states: Mapping[str, Tensor]) -> None:
    """Restore what :func:`torch_states` returned."""
    torch.set_rng_state(states['cpu'])
    if 'cuda' in states:
        torch.cuda.set_rng_state(states['cuda'])


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Restore the generators' states on exit, so that calibration doesn't change a later training.

    On GPUs it is the current one's, where it is in use.
    """
    states = random.getstate(), np.random.get_state(), torch_states()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        set_torch_states(states[2])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have the body draw the same numbers each time; the generators' states are restored on exit."""
    with kept_random_state():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
