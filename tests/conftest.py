"""Settings for the whole suite: few threads, no network, fixed seeds."""

import os

os.environ.setdefault('GOMP_SPINCOUNT', '0')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)
