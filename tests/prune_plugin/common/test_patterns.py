"""Patterns: what they select, and that one which selects nothing is named, whatever the key."""

import operator
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.prune_plugin import UserError
from projects.prune_plugin.common.patterns import (
    check_matches,
    matches,
    matches_whole,
    matches_within,
    select,
)

NAMES = ['blocks.0.attn', 'blocks.0.mlp', 'blocks.1.attn', 'blocks.10.mlp', 'head.mlp.fc']


@pytest.mark.parametrize(
    'pattern, own, within, whole',
    [
        ('.*', [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (r'blocks\.1', [2, 3], [2, 3], []),
        (r'.*mlp$', [1, 3], [1, 3, 4], [1, 3]),
        (r'blocks\.\d+\.attn', [0, 2], [0, 2], [0, 2]),
        ('attn', [], [], []),
        (r'(?!.*mlp)', [0, 2], [0, 1, 2, 3, 4], []),
        (r'(?i)HEAD', [4], [4], []),
    ],
)
def test_what_a_pattern_selects(pattern, own, within, whole):
    for match, expected in ((matches, own), (matches_within, within), (matches_whole, whole)):
        assert select(NAMES, [pattern], match=match) == [NAMES[i] for i in expected], match


def test_exclude_beats_include():
    assert select(NAMES, [r'blocks'], [r'.*mlp']) == ['blocks.0.attn', 'blocks.1.attn']


@given(name=st.lists(st.sampled_from(['a', 'b', '0', 'mlp']), min_size=1).map('.'.join))
def test_modules_around_a_name_change_nothing_but_for_its_end(name):
    for pattern in ('a', r'.*\.b', r'\w+\.0', '.*mlp', 'mlp|0'):
        assert matches(pattern, name) == matches_within(pattern, name)


@pytest.mark.parametrize('match', [matches, matches_within, matches_whole, operator.eq])
def test_what_matches_nothing_is_named_with_what_is_valid(match):
    check_matches('key', ['x'], ['y', 'x'], 'things', match)
    check_matches('key', [], [], 'things', match)
    with pytest.raises(UserError, match=r"^key: 'q' matches nothing; things here are x, y$"):
        check_matches('key', ['x', 'q'], ['x', 'y', 'x'], 'things', match)
    with pytest.raises(UserError, match='things here are none at all'):
        check_matches('key', ['x'], [], 'things', match)
    with pytest.raises(UserError, match=re.escape('are 0, 1, 2, 3, 4, ...')):
        check_matches('key', ['x'], map(str, range(9)), 'things', match)
