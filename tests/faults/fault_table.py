"""The list of faults: every test says what it breaks, where, and what that ends in.

``python tests/faults/fault_table.py`` writes it into docs/faults.md.
"""

import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / 'docs/faults.md'
BEGIN, END = '<!-- table -->', '<!-- end of table -->'


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        kind: Heading under which it stands.
        what: The fault.
        where: How it is brought about.
        ends: What the tools do about it.
    """

    kind: str
    what: str
    where: str
    ends: str


def fault(kind: str, what: str, where: str, ends: str) -> Callable:
    """Decorate a test with the fault that it is about."""

    def mark(test: Callable) -> Callable:
        test.fault = Fault(kind, what, where, ends)
        return test

    return mark


def all_tests() -> dict[str, Callable]:
    """All tests of this folder, by ``file::name``."""
    found = {}
    for path in sorted(HERE.glob('test_*.py')):
        module = importlib.import_module(path.stem)
        for name, test in vars(module).items():
            if name.startswith('test_'):
                found[f'{path.name}::{name}'] = test
    return found


def marks_of(module: str) -> list:
    """The marks that a module gives to all its tests."""
    marks = getattr(sys.modules[module], 'pytestmark', [])
    return marks if isinstance(marks, list) else [marks]


def table() -> str:
    """The rows as Markdown, in the order of the files."""
    kinds: dict[str, list[str]] = {}
    for name, test in all_tests().items():
        marks = [*getattr(test, 'pytestmark', []), *marks_of(test.__module__)]
        slow = any(mark.name == 'faults' for mark in marks)
        if row := getattr(test, 'fault', None):
            kinds.setdefault(row.kind, []).append(
                f'| {row.what} | {row.where} | {row.ends} | `{name}`{" *" * slow} |'
            )
    head = '| fault | how it is brought about | what it ends in | test |\n|---|---|---|---|\n'
    return '\n\n'.join(f'### {kind}\n\n{head}' + '\n'.join(rows) for kind, rows in kinds.items())


def page_with(rows: str) -> str:
    """The page with these rows in the place of those it has."""
    return re.sub(
        f'(?<={BEGIN}\n).*(?={END})', lambda _: f'\n{rows}\n\n', PAGE.read_text(), flags=re.DOTALL
    )


if __name__ == '__main__':
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    PAGE.write_text(page_with(table()))
