"""docs/cases.md says what the tests show."""

import pytest
from case_table import OPEN, PAGE, TESTS, cases, functions, page


def test_the_page_has_the_rows():
    """``python tests/docs/case_table.py`` writes them."""
    assert PAGE.read_text(encoding='utf-8') == page()


@pytest.mark.parametrize('test', sorted({case.test for case in cases() if case.test}))
def test_every_test_is_there(test):
    file, _, name = test.partition('::')
    assert name in functions(TESTS / file)


def test_what_is_open_is_said_so():
    for case in cases():
        assert bool(case.test) == (case.ends != OPEN), case
