"""The inputs that once went wrong, what each ends in now, and the test that shows it: cases.csv.

``python tests/docs/case_table.py`` writes docs/cases.md.
"""

import ast
import csv
import textwrap
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
PAGE = TESTS.parent / 'docs/cases.md'
#: What an input ends in where nothing was done yet; such rows have no test.
OPEN = 'not done'


class Case(NamedTuple):
    """One row.

    Attributes:
        section: Heading under which it stands.
        what: The input.
        ends: What it ends in.
        test: ``file::function`` under tests/.
    """

    section: str
    what: str
    ends: str
    test: str


def cases() -> list[Case]:
    """All rows."""
    with open(HERE / 'cases.csv', encoding='utf-8', newline='') as file:
        return [Case(*row) for row in list(csv.reader(file))[1:]]


def functions(path: Path) -> set[str]:
    """Names of a file's tests."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def page() -> str:
    """The page."""
    head = (
        'Inputs that people, adversaries, and the trackers of other tools brought up: each went wrong '
        'once, or was reported to go wrong elsewhere. What each ends in now is shown by a test, which '
        'stands beside it. Written by `python tests/docs/case_table.py`; faults of machines are in '
        '[faults.md](faults.md).'
    )
    parts = ['# Cases', '', *textwrap.wrap(head, 118, break_on_hyphens=False)]
    section = ''
    for case in cases():
        if case.section != section:
            section = case.section
            parts += ['', f'## {section}', '', '| input | ends in | test |', '|---|---|---|']
        test = f'`{case.test}`' if case.test else '-'
        parts.append(f'| {case.what} | {case.ends} | {test} |')
    return '\n'.join([*parts, ''])


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
    print(f'written to {PAGE}')
