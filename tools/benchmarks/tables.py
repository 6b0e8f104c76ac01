"""Saved results, and Markdown tables of them."""

import json
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
