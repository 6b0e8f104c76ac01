"""Saved results, and Markdown tables of them."""

import json
import textwrap
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / 'docs'


def has_result(name: str) -> bool:
    """Whether the benchmark was ever run."""
    return (DOCS / 'benchmarks' / f'{name}.json').is_file()


def result(name: str) -> dict:
    """A benchmark's saved result."""
    return json.loads((DOCS / 'benchmarks' / f'{name}.json').read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def again(name: str) -> str:
    """What the heading of a short run's section ends with."""
    return ', in the hour of `make bench`' if name.endswith('_short') else ''


def wrapped(page: str) -> str:
    """A page with its paragraphs wrapped at 120 columns; tables, lists and headings are left unchanged."""
    blocks = [
        block
        if block.lstrip('\n').startswith(('#', '|', '-', '!'))
        else textwrap.fill(block, 120, break_long_words=False, break_on_hyphens=False)
        for block in page.rstrip('\n').split('\n\n')
    ]
    return '\n\n'.join(blocks) + '\n'
