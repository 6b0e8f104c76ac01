"""Benchmarks find data where the configs do, and say what is missing before they begin."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'
sys.path.insert(0, str(BENCHMARKS))
import data_folders  # noqa: E402


def test_the_environment_says_where_data_is(monkeypatch, tmp_path):
    monkeypatch.setenv('SOME_ROOT', str(tmp_path))
    assert data_folders.data_folder('SOME_ROOT', 'some') == tmp_path
    monkeypatch.delenv('SOME_ROOT')
    assert data_folders.data_folder('SOME_ROOT', 'some') == data_folders.ROOT / 'data' / 'some'


@pytest.mark.parametrize(
    ('script', 'variable', 'said'),
    [
        ('tickets', 'CIFAR10_ROOT', 'holds no train split of CIFAR-10'),
        ('llm_weights', 'WIKITEXT2_ROOT', 'has no wiki.test.raw'),
    ],
)
def test_missing_data_is_one_sentence(monkeypatch, tmp_path, script, variable, said):
    monkeypatch.setenv(variable, str(tmp_path / 'nowhere'))
    ended = subprocess.run(
        [sys.executable, BENCHMARKS / f'{script}.py'], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == 2
    assert said in ended.stderr and 'nowhere' in ended.stderr
    assert 'Traceback' not in ended.stderr
    assert not any(tmp_path.iterdir())
