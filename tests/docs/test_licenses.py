"""docs/licenses.md lists what is pinned, and nothing restricted goes without a word on it."""

import re
import sys
from email.message import Message
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'docs'))
licenses = import_module('licenses')


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """Cells of a section's table by its first column."""
    text = page.partition(f'## {heading}\n')[2].partition('\n## ')[0]
    lines = [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| ')]
    return {name: rest for name, *rest in lines[2:]}


def test_the_page_lists_every_pinned_package():
    lines = (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    pinned = [line.partition('==')[0] for line in lines if '==' in line]
    listed = rows(licenses.PAGE.read_text(encoding='utf-8'), 'Every pinned package')
    assert list(listed) == pinned
    assert all(licence for _, licence in listed.values())


def test_restricted_packages_have_a_note_on_the_page():
    page = licenses.PAGE.read_text(encoding='utf-8')
    noted, every = rows(page, 'Not permissive'), rows(page, 'Every pinned package')
    restricted = {
        name
        for name, (_, licence) in every.items()
        if re.search(r'GPL|MPL|General Public|Mozilla|commercial', licence, re.I)
    }
    assert {'codespell', 'lyft_dataset_sdk', 'tqdm'} <= restricted <= set(noted)
    assert set(licenses.NOTES) == set(noted), 'a note on something that is not pinned'


@pytest.mark.parametrize(
    ('said', 'licence'),
    [
        ({'License-Expression': 'MIT', 'License': 'see file'}, 'MIT'),
        ({'License': 'BSD-3-Clause', 'Classifier': 'License :: OSI Approved :: BSD License'},
         'BSD-3-Clause'),
        ({'License': 'MIT License\n\nCopyright', 'Classifier': 'License :: OSI Approved :: MIT License'},
         'MIT License'),
        ({'License': 'UNKNOWN', 'Classifier': 'License :: OSI Approved'}, ''),
    ],
)  # fmt: skip
def test_the_most_exact_statement_counts(said, licence):
    message = Message()
    for key, value in said.items():
        message[key] = value
    assert licenses.stated_by(message) == licence


def test_a_restricted_package_without_a_note_is_refused(monkeypatch):
    monkeypatch.setitem(licenses.STATED, 'numpy', 'LGPL-3.0-only')
    with pytest.raises(ValueError, match='numpy is under LGPL-3.0-only: say in NOTES'):
        licenses.license_of('numpy')


def test_a_package_without_a_licence_is_refused():
    with pytest.raises(ValueError, match='no licence of no-such-package is known'):
        licenses.license_of('no-such-package')
