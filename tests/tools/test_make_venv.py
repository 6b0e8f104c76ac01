"""The environment with another torch differs from the pinned one in torch and torchvision alone."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'setup'))
import make_venv  # noqa: E402


@pytest.mark.parametrize('torch', ['2.13.0', '2.13.0+cpu'])
def test_only_torch_and_torchvision_differ(torch):
    pinned = (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    other = make_venv.pins_with(torch).splitlines()
    gone = {line.partition('==')[0] for line in set(pinned) - set(other)}
    assert gone == {'torch', 'torchvision'}
    assert set(other) - set(pinned) == {f'torch==={torch}'}


def test_no_build_with_a_label_is_taken_for_one_without():
    (pin,) = (line for line in make_venv.pins_with('2.13.0').splitlines() if 'torch=' in line)
    allowed = Requirement(pin).specifier
    assert '2.13.0' in allowed
    assert '2.13.0+cpu' not in allowed


def test_without_a_version_the_pins_stand():
    assert make_venv.pins_with(None) == (ROOT / 'constraints.txt').read_text(encoding='utf-8')


@pytest.mark.parametrize('torch', ['', '2.13', '2.13.0; rm', '2.13.0+', 'latest'])
def test_what_is_no_version_is_refused(torch):
    with pytest.raises(make_venv.SetupError, match='is no version; give one like 2.13.0'):
        make_venv.pins_with(torch)
