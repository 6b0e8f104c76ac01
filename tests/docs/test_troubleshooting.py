"""Every message that docs/troubleshooting.md quotes stands in the code, or is one of other programs."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'troubleshooting.md').read_text(encoding='utf-8')
#: Of Python, PyTorch, MMEngine and the operating system; and words of ours that are no messages.
OTHERS = {
    'EADDRINUSE', 'device_ids [0]', 'torch.cuda',
    'is only available training on gpu', 'size mismatch', 'type', 'metrics', '-', 'Taylor',
    "No module named 'projects.prune_plugin'",
}  # fmt: skip
GAP = '…'


def shape(node: ast.expr) -> str | None:
    """A string expression with a gap for each value put into it; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(shape(value) or GAP for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (shape(node.left) or GAP) + (shape(node.right) or GAP)
    return None


@cache
def messages() -> frozenset[str]:
    """What the package and the tools pass to a call: errors, and lines for the log."""
    packages = (ROOT / 'mm_prune', ROOT / 'projects')
    files = [f for package in packages for f in package.rglob('*.py')]
    files += (ROOT / 'tools').glob('*.py')
    calls = (
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8')))
        if isinstance(node, ast.Call) and node.args
    )
    return frozenset(filter(None, (shape(call.args[0]) for call in calls)))


def quotes() -> list[str]:
    """What stands in backticks in the first column of the tables."""
    rows = [line for line in PAGE.splitlines() if line.startswith('| ')]
    first = [row.split(' | ')[0] for row in rows if not row.startswith('| symptom')]
    return [quote for cell in first for quote in re.findall(r'`([^`]+)`', cell)]


@pytest.mark.parametrize('quote', sorted(set(quotes()) - OTHERS))
def test_quoted_messages_are_in_the_code(quote):
    said = quote.removeprefix('error: ')
    assert said in messages(), 'no message is like this; "…" stands for what is put in'


def test_the_tables_quote_many_messages_and_every_row_has_a_remedy():
    assert len(set(quotes()) - OTHERS) >= 25
    for line in PAGE.splitlines():
        if line.startswith('| '):
            cells = line.strip('|').split(' | ')
            assert len(cells) == 3 and all(cell.strip() for cell in cells), line


def test_a_changed_word_is_noticed():
    known = next(quote for quote in quotes() if quote.startswith('checkpoint … is truncated'))
    assert known in messages() and known.replace('truncated', 'shortened') not in messages()
