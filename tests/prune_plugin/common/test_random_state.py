"""Random numbers are those that would have come without what ran between."""

import random

import numpy as np
import torch

from projects.prune_plugin.calibration.sequential import thread_state_restored
from projects.prune_plugin.common.random_state import kept_random_state


def drawn() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_generators_on_the_cpu():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = drawn()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with kept_random_state():
        drawn()
    assert drawn() == expected


def test_the_generator_of_the_current_gpu(monkeypatch):
    """A number stands for its state."""
    state = [torch.tensor([7])]
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda: state[0].clone())
    monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda new: state.__setitem__(0, new))
    for context in (kept_random_state(), thread_state_restored('cpu')):
        with context:
            state[0] = torch.tensor([8])
        assert state[0].item() == 7
