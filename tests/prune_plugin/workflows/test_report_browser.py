"""The page of a report in a real browser: screenshots, in work_dirs/test_artefacts, and what they show."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import prune, pruner_from_config

ROOT = Path(__file__).resolve().parents[3]
ARTEFACTS = Path(os.environ.get('TEST_ARTEFACTS', ROOT / 'work_dirs' / 'test_artefacts'))
BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
SCHEMES = dict(dark=0, light=1)
WIDTHS = dict(desktop=1200, phone=500)  # headless Chromium has no narrower windows

pytestmark = pytest.mark.skipif(not BROWSER, reason='there is no Chromium')


@pytest.fixture(scope='module')
def page(tmp_path_factory) -> Path:
    """The report of a run."""
    pytest.importorskip('timm')
    folder = tmp_path_factory.mktemp('browser')
    cfg = Config.fromfile(ROOT / 'projects/configs/ViT/vit_tiny_digits_prune50.py')
    cfg.merge_from_dict({
        'prune_cfg.profile': dict(seconds=0.05, batch_size=2), 'test_dataloader.dataset.indices': 32
    })  # fmt: skip
    prune(cfg, pruner_from_config(cfg), PruneOptions(None, folder))
    return folder / 'report.html'


@pytest.fixture(scope='module')
def screenshots(page) -> dict[tuple[str, str], np.ndarray]:
    """Pixels (height, width, 3) at each width and in each colour scheme."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    found = {}
    for place, width in WIDTHS.items():
        for scheme, number in SCHEMES.items():
            path = ARTEFACTS / f'report_{place}_{scheme}.png'
            path.unlink(missing_ok=True)
            subprocess.run(
                [
                    BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
                    f'--blink-settings=preferredColorScheme={number}',
                    f'--window-size={width},2400', f'--screenshot={path}', page.as_uri(),
                ],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            found[place, scheme] = np.asarray(Image.open(path).convert('RGB'))
    return found


@pytest.mark.parametrize('place', WIDTHS)
def test_light_and_dark(screenshots, place):
    """The page is bright or dark as the reader's system is."""
    light, dark = (np.median(screenshots[place, scheme]) for scheme in ('light', 'dark'))
    assert light > 200 and dark < 60


@pytest.mark.parametrize('place', WIDTHS)
def test_nothing_runs_over_the_edge(screenshots, place):
    """The last columns of pixels are empty page from top to bottom, at any width."""
    for scheme in SCHEMES:
        edge = screenshots[place, scheme][:, -6:]
        assert (edge == edge[0, 0]).all(), scheme
