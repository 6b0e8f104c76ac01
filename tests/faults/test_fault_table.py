"""docs/faults.md lists what is tested, and all of it."""

import re

from fault_table import BEGIN, END, PAGE, all_tests, page_with, table


def test_every_test_has_its_row():
    bare = [name for name, test in all_tests().items() if not hasattr(test, 'fault')]
    assert all(name.startswith('test_fault_table.py::') for name in bare), bare
    assert len(all_tests()) - len(bare) > 20


def test_the_page_has_the_rows():
    """``python tests/faults/fault_table.py`` writes them."""
    text = PAGE.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert page_with(table()) == text


def test_a_changed_row_would_show(monkeypatch):
    rows = table()
    assert rows.count('\n| ') > 20 and '`test_clock.py::test_clock_jumps_back`' in rows
    assert page_with(re.sub('the clock jumps back', 'the clock stops', rows)) != PAGE.read_text()
