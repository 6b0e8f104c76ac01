"""Tables of figures, on wide and on narrow terminals."""

import pytest
from rich.console import Console

from projects.vad.evaluation import tables

COLUMNS = ['class', *'AP ATE ASE AOE AVE AAE'.split(), *(f'AP {d} m' for d in (0.5, 1.0, 2.0, 4.0))]
ROWS = [['construction_vehicle', *[0.1234] * 10], ['car', 12, *[float('nan')] * 9]]


@pytest.mark.parametrize(('width', 'figure'), [(140, '0.1234'), (100, '0.1234'), (81, '0.123')])
def test_tables_fit_the_terminal(monkeypatch, width, figure):
    said = []
    monkeypatch.setattr(tables, 'print_log', lambda text, *_: said.append(text))
    monkeypatch.setattr(tables, 'Console', lambda *a, **k: Console(*a, **{
        'width': width, 'force_terminal': True, **k}))  # fmt: skip
    tables.log_table('figures', COLUMNS, iter(ROWS), ['a note'])
    table = ''.join(said).splitlines()
    assert max(map(len, table)) <= width and table[-1] == 'a note'
    (row,) = [line.split() for line in table if line.strip().startswith('construction_vehicle')]
    assert row == ['construction_vehicle', *[figure] * 10]
    (row,) = [line.split() for line in table if line.strip().startswith('car')]
    assert row == ['car', '12', *['-'] * 9]
