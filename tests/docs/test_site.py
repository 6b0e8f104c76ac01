"""The docs as a site: every page is in the navigation, and nothing comes from elsewhere."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'tools/docs/mkdocs.yml'
MKDOCS = ROOT / '.venv-site/bin/mkdocs'
BROWSER = shutil.which('chromium') or ''


def test_every_page_is_in_the_navigation():
    docs = ROOT / 'docs'
    pages = {
        str(p.relative_to(docs)) for p in (*docs.glob('*.md'), *docs.glob('tutorials/*.ipynb'))
    }
    listed = re.findall(r'[\w/]+\.(?:md|ipynb)', CONFIG.read_text().split('\nnav:')[1])
    assert set(listed) == pages and len(listed) == len(pages)


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """The site, built as `make site` does: warnings are errors."""
    if not MKDOCS.exists():
        pytest.skip('make site has not made its environment')
    folder = tmp_path_factory.mktemp('site')
    command = [MKDOCS, 'build', '--quiet', '--config-file', CONFIG, '--site-dir', folder]
    subprocess.run(command, check=True, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'}, cwd=ROOT)
    return folder


def test_nothing_is_loaded_from_elsewhere(site):
    """Links that a reader follows may lead away; scripts, styles, fonts and pictures don't."""
    for page in site.rglob('*.html'):
        text = page.read_text(encoding='utf-8')
        loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="?([^" >]+)', text)
        loaded += re.findall(r'<link\b[^>]*\bhref="?([^" >]+)', text)
        assert not [url for url in loaded if re.match(r'(https?:)?//', url)], page
    for sheet in site.rglob('*.css'):
        assert not re.search(r'url\(["\']?(https?:)?//', sheet.read_text(encoding='utf-8')), sheet


@pytest.mark.skipif(not BROWSER, reason='there is no Chromium')
def test_the_search_works_in_files(site, tmp_path):
    """Browsers refuse workers to pages of files; our own stands in."""
    command = [
        BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking',
        '--no-first-run', f'--user-data-dir={tmp_path}', '--virtual-time-budget=10000', '--dump-dom',
        f'{(site / "index.html").as_uri()}?q=knapsack',
    ]  # fmt: skip
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'md-search-result__meta">(\d+) matching documents', shown)
    assert found and int(found[1]) > 3
