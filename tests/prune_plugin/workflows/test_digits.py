"""Numbers that are compared have equally many digits."""

import pytest

from projects.prune_plugin.workflows.reports.digits import difference, number, numbers


@pytest.mark.parametrize(
    ('values', 'shown'),
    [
        ([14.84, 8.571], ['14.84', '8.57']),
        ([8.8352, 8.8361], ['8.835', '8.836']),
        ([1201802, 609290.4], ['1,201,802', '609,290']),
        ([48, 24.0], ['48', '24']),
        ([10.83, None, 12.222], ['10.83', '-', '12.22']),
        ([100.0, 0.0123], ['100.000', '0.012']),  # the smaller one must not be lost
        ([2.196e-5, 1.999e-5], ['2.196e-05', '1.999e-05']),
        ([0.0, 0.0], ['0', '0']),
        ([0.4226, 0.4226], ['0.4226', '0.4226']),
        ([None, None], ['-', '-']),
        ([-0.5, 2.25], ['-0.500', '2.250']),
    ],
)
def test_a_row(values, shown):
    assert numbers(values) == shown


def test_units_and_single_numbers():
    assert numbers([1.5, 2.0], ' ms') == ['1.500 ms', '2.000 ms']
    assert [number(v, ' s') for v in (None, 1234.5, 3.14159)] == ['-', '1,234 s', '3.142 s']


def test_differences_have_the_decimals_of_their_row():
    assert difference(10.833, 10.556, [10.833, 10.556]) == '-0.28'
    assert difference(2e-5, 3e-5, [2e-5, 3e-5]) == '+1.0e-05'
    assert difference(0.0, 0.0, [0.0, 0.0]) == '='
    assert difference(None, 1.0, [None, 1.0]) == difference(1.0, None, [1.0, None]) == ''
