"""README.md and README.zh.md say the same, and every result comes from a file of docs/benchmarks."""

import json
import re
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'docs'))
results = import_module('results')

ENGLISH = (ROOT / 'README.md').read_text(encoding='utf-8')
CHINESE = (ROOT / 'README.zh.md').read_text(encoding='utf-8')


def code(text: str) -> list[str]:
    """Fenced blocks without comments and without spaces at line ends."""
    blocks = re.findall(r'^```.*?^```', text, re.MULTILINE | re.DOTALL)
    return [re.sub(r' *#.*| +$', '', block, flags=re.MULTILINE) for block in blocks]


def prose(text: str) -> str:
    return re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)


def found(pattern: str, text: str) -> Counter:
    return Counter(re.findall(pattern, prose(text), re.MULTILINE))


def test_headings_code_and_pictures_are_the_same():
    levels = [re.findall(r'^(#+) ', prose(text), re.MULTILINE) for text in (ENGLISH, CHINESE)]
    assert levels[0] == levels[1] and len(levels[0]) > 7
    assert code(ENGLISH) == code(CHINESE) and len(code(ENGLISH)) > 6
    pictures = [re.findall(r'!\[[^\]]*\]\(([^)]+)\)', text) for text in (ENGLISH, CHINESE)]
    assert pictures[0] == pictures[1] != []


@pytest.mark.parametrize(
    'pattern', [r'`[^`\n]+`', r'\d[\d.,]*\d|\d', r'(?<!!)\[[^\]]*\]\(([^)]+)\)', r'^- \*\*', r'^\|'],
    ids=['words in code', 'numbers', 'links', 'points', 'rows'],
)  # fmt: skip
def test_what_needs_no_translation_is_in_both(pattern):
    ours, theirs = found(pattern, ENGLISH), found(pattern, CHINESE)
    language = Counter(['README.zh.md']), Counter(['README.md'])
    assert ours - language[0] == theirs - language[1] != Counter()


def test_each_links_to_the_other():
    assert '[中文](README.zh.md)' in ENGLISH and '[English](README.md)' in CHINESE


@pytest.mark.parametrize('page', results.HEADS)
def test_results_are_what_the_command_writes(page):
    now = (ROOT / page).read_text(encoding='utf-8')
    assert results.written(page) == now, 'other than the files in docs/benchmarks: run make docs'


def test_results_are_the_numbers_in_the_files():
    """Of three rows, looked up here by themselves."""
    files = {
        name: json.loads((ROOT / f'docs/benchmarks/{name}.json').read_text())
        for name in ('vit_latency', 'vad_prune', 'llm_weights')
    }
    ms = files['vit_latency']['latency_ms']
    assert f'| {ms["dense"]:.1f} | {ms["slim"]:.1f} | {ms["by_hand"]:.1f} (' in ENGLISH
    errors = [
        row['plan_l2']
        for row in files['vad_prune']['results']
        if (row['method'], row['ratio'], row['stage']) == ('taylor-knapsack', 0.3, 'recovered')
    ]
    assert f'| {sum(errors) / len(errors):.2f} | ' in ENGLISH
    (sparse,) = (
        row['perplexity']
        for row in files['llm_weights']['results']
        if (row['setting'], row['method']) == ('90%', 'ours_sparsegpt')
    )
    assert f'| {sparse:.0f} | ' in ENGLISH
