"""The page of a report in a real browser: screenshots, in work_dirs/test_artefacts, and what they show."""

import os
from pathlib import Path

import numpy as np
import pytest
from chromium import BROWSER, Page
from mmengine.config import Config
from PIL import Image

from projects.prune_plugin import RunReport
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import prune, pruner_from_config
from projects.prune_plugin.workflows.reports import write_html
from projects.prune_plugin.workflows.round_record import Row

ROOT = Path(__file__).resolve().parents[3]
ARTEFACTS = Path(os.environ.get('TEST_ARTEFACTS', ROOT / 'work_dirs' / 'test_artefacts'))
SCHEMES = ('dark', 'light')
WIDTHS = dict(desktop=1200, phone=390)
#: Boxes that are narrower than the table inside, and pictures that nobody reads aloud.
CUT_OFF = """Array.from(document.querySelectorAll('.scroll:has(table)'))
  .filter(box => box.scrollWidth > box.clientWidth).map(box => box.getAttribute('aria-label'))"""
WITHOUT_TEXT = 'Array.from(document.images).filter(image => !image.alt).length'

pytestmark = pytest.mark.skipif(not BROWSER, reason='there is no Chromium')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """The report of a run, with everything that a page may have."""
    pytest.importorskip('timm')
    folder = tmp_path_factory.mktemp('browser')
    cfg = Config.fromfile(ROOT / 'projects/configs/ViT/vit_tiny_digits_prune50.py')
    cfg.merge_from_dict({
        'prune_cfg.profile': dict(seconds=0.05, batch_size=2), 'test_dataloader.dataset.indices': 32
    })  # fmt: skip
    result = prune(cfg, pruner_from_config(cfg), PruneOptions(None, folder))
    report = RunReport.from_dict(result.report.to_dict())
    metric = next(iter(report.headline))
    report.rounds = [
        Row(n, n / 4, n / 4, {metric: 50.0 / n}, {metric: 60.0 / n}) for n in (1, 2, 3)
    ]
    report.not_prunable, report.not_prunable_share = {'backbone.conv': 'a reason'}, 0.031
    write_html(report, folder, [folder / 'kept_share.png', folder / 'metrics_params.png'])
    return folder


@pytest.fixture(scope='module')
def browser(folder):
    """The page, opened."""
    with Page(folder / 'profile') as page:
        page.open((folder / 'report.html').as_uri())
        yield page


@pytest.fixture(params=[(place, scheme) for place in WIDTHS for scheme in SCHEMES])
def page(request, browser):
    """The page at a width and in a colour scheme."""
    place, scheme = request.param
    browser.view(WIDTHS[place], 2400, scheme)
    browser.place, browser.scheme = place, scheme
    return browser


def test_light_and_dark(page):
    """The page is bright or dark as the reader's system is, pictures included."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    path = ARTEFACTS / f'report_{page.place}_{page.scheme}.png'
    page.shot(path)
    pixels = np.asarray(Image.open(path).convert('RGB'))
    box = page.run(
        '(r => [r.top, r.bottom, r.left, r.right])(document.images[0].getBoundingClientRect())'
    )
    top, bottom, left, right = (max(round(value), 0) for value in box)
    for part in (pixels, pixels[top:bottom, left : min(right, page.run('innerWidth'))]):
        assert (np.median(part) > 200) if page.scheme == 'light' else (np.median(part) < 60)


def test_nothing_runs_over_the_edge(page):
    """Nor is a table wider than its box: on a phone its rows are cards."""
    assert page.run('document.documentElement.scrollWidth') <= WIDTHS[page.place]
    assert page.run(CUT_OFF) == []


def test_everyone_can_read_it(page):
    assert page.violations() == []
    assert page.run(WITHOUT_TEXT) == 0
    assert not page.errors


def test_what_stays_is_told_with_its_share(browser):
    text = browser.run('document.body.textContent')
    assert '1 module that cannot be cut, 3.1 % of the parameters' in text
    assert 'write a finder for their class' in text
