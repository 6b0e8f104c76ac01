"""For the whole suite: few threads, no network, fixed seeds, and the toy drive."""

import os
from pathlib import Path

os.environ.setdefault('GOMP_SPINCOUNT', '0')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

#: Drawn inputs: always the same few, or with ``--hypothesis-profile=many`` new ones and many.
SLOW_DRAWS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile(
    'few', max_examples=30, derandomize=True, deadline=None, suppress_health_check=SLOW_DRAWS
)
settings.register_profile('many', settings.get_profile('few'), max_examples=400, derandomize=False)
settings.load_profile('few')


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def toy_root(tmp_path_factory) -> Path:
    """A toy drive with a training and a test scene of 8 frames each, and its info files."""
    from projects.vad.datasets.converter import write_infos
    from projects.vad.datasets.toy import write_toy

    root = tmp_path_factory.mktemp('toy') / 'toy_nuscenes'
    size = (320, 180)
    write_toy(root, seed=0, num_scenes=2, num_frames=8, image_size=size, progress=False, workers=1)
    write_infos(root, root, version='v1.0-mini', progress=False)
    return root
