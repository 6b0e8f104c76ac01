"""Bisection against a scan over a grid."""

import math
import random

import pytest

from projects.prune_plugin.common.bisection import bisect_largest


class Asked:
    """A predicate that notes what it is asked."""

    def __init__(self, holds):
        self.holds, self.at = holds, []

    def __call__(self, x: float) -> bool:
        assert x not in self.at, f'{x} asked twice'
        self.at.append(x)
        return self.holds(x)


def most_asked(low: float, high: float, tolerance: float) -> int:
    return max(2, math.ceil(math.log2((high - low) / tolerance)) + 1)


@pytest.mark.parametrize('seed', range(20))
def test_where_it_holds_up_to_a_point_that_point_is_found(seed):
    draw = random.Random(seed)
    low, high = sorted((draw.uniform(0.01, 0.5), draw.uniform(0.5, 0.99)))
    tolerance, edge = draw.choice((0.1, 0.01, 1e-4)), draw.uniform(low, high)
    asked = Asked(lambda x: x <= edge)
    found = bisect_largest(asked, low, high, tolerance)
    grid = [low + i * (high - low) / 100_000 for i in range(100_001)]
    best = max(x for x in grid if x <= edge)
    assert found in asked.at
    assert best - tolerance <= found <= edge
    assert len(asked.at) <= most_asked(low, high, tolerance)


@pytest.mark.parametrize('seed', range(20))
def test_elsewhere_it_is_an_edge(seed):
    """Holds at what it gives, not at something at most the tolerance above; None only if none holds."""
    draw = random.Random(seed)
    edges = sorted(draw.random() for _ in range(6))

    def jumping(x: float) -> bool:
        return sum(x > edge for edge in edges) % 2 == 0

    asked = Asked(jumping)
    found = bisect_largest(asked, 0.05, 0.95, 0.01)
    if found is None:
        assert not any(jumping(x) for x in asked.at)
    else:
        assert found in asked.at and jumping(found)
        above = [x for x in asked.at if not jumping(x) and found < x <= found + 0.01]
        assert above or found == 0.95


def test_the_ends_are_tried_only_where_they_matter():
    everywhere, nowhere = Asked(lambda x: True), Asked(lambda x: False)
    assert bisect_largest(everywhere, 0.1, 0.9, 0.01) == 0.9
    assert bisect_largest(nowhere, 0.1, 0.9, 0.01) is None
    assert (everywhere.at[-1], nowhere.at[-1]) == (0.9, 0.1)
    inside = Asked(lambda x: x < 0.4)
    assert 0.39 <= bisect_largest(inside, 0.1, 0.9, 0.01) < 0.4
    assert not {0.1, 0.9} & set(inside.at)


@pytest.mark.parametrize(('edge', 'found', 'tried'), [(0.5, 0.5, [0.5]), (0.4, None, [0.5])])
def test_one_ratio_to_choose_from(edge, found, tried):
    asked = Asked(lambda x: x <= edge)
    assert bisect_largest(asked, 0.5, 0.5, 0.01) == found
    assert asked.at == tried


@pytest.mark.parametrize('trials', [2, 3, 4, 5, 20])
@pytest.mark.parametrize('edge', [0.0, 0.11, 0.5, 0.88, 1.0])
def test_never_more_trials_than_allowed(trials, edge):
    asked = Asked(lambda x: x <= edge)
    found = bisect_largest(asked, 0.1, 0.9, 0.001, trials)
    assert len(asked.at) <= trials
    held = [x for x in asked.at if x <= edge]
    assert found == max(held, default=None)
