"""docs/reference.md is what `make docs` writes now, and the writer reads docstrings rightly."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'docs'))
docstrings = import_module('docstrings')

SAMPLE = """Does ``this`` with :class:`~a.b.Thing`.

    More on it,
    in two lines.

    - one,
      and more
    - two

    Args:
        first: A number, as in
            ``first=1``.
        **rest: Others.

    Raises:
        UserError: never.

    Example:
        >>> this(first=1)
        ... # so
    """


def test_docstrings_are_taken_apart():
    found = docstrings.parse(SAMPLE)
    assert found.text == [
        'Does `this` with `a.b.Thing`.',
        'More on it, in two lines.',
        '- one, and more\n- two',
    ]
    assert found.arguments == {'first': 'A number, as in `first=1`.', 'rest': 'Others.'}
    assert found.sections == {'Raises': 'UserError: never.'}
    assert found.example == '>>> this(first=1)\n... # so'


def test_the_page_is_what_the_command_writes():
    pytest.importorskip('mmdet3d')
    pytest.importorskip('timm')
    pytest.importorskip('transformers')
    reference = import_module('reference')
    written = reference.page()
    assert '### `Knapsack`' in written and '### `ObjectQueries`' in written
    assert written == (ROOT / 'docs' / 'reference.md').read_text(encoding='utf-8'), (
        'docs/reference.md is older than the docstrings: run make docs'
    )


def test_an_argument_without_a_word_is_refused():
    reference = import_module('reference')

    class Silent:
        """Says nothing of its argument."""

        def __init__(self, loud: bool = False):
            self.loud = loud

    with pytest.raises(ValueError, match='docstring of Silent does not tell of loud'):
        list(reference.arguments(Silent, docstrings.parse(Silent.__doc__)))
