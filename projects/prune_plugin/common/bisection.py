"""Bisection for the largest number that satisfies a predicate."""

import math
from collections.abc import Callable


def bisect_largest(
    predicate: Callable[[float], bool],
    low: float,
    high: float,
    tolerance: float,
    max_trials: int | None = None,
) -> float | None:
    """Return the largest number in [low, high] that satisfies ``predicate``, to within ``tolerance``.

    Assumes that ``predicate`` is true below some threshold and false above it. If it changes more than
    once, the result is next to one of the changes: it satisfies ``predicate``, and a number at most
    ``tolerance`` above it was tried and doesn't. ``low`` and ``high`` are tried only if no number between
    them has made that unnecessary.

    Args:
        predicate: Called at most once for each number.
        low: Lower end of the interval.
        high: Upper end of the interval.
        tolerance: Largest accepted width of the final interval.
        max_trials: Largest number of calls, at least 2; the tolerance may then not be reached. None: no
            limit.

    Returns:
        The largest number tried that satisfies ``predicate``; None if no number tried does.

    Example:
        >>> bisect_largest(lambda x: x <= 0.3, 0.0, 1.0, 0.01)
        0.296875
    """
    lower, upper, any_passed, any_failed, trials_left = low, high, False, False, max_trials
    while upper - lower > tolerance and (trials_left is None or trials_left > 1):
        middle = (lower + upper) / 2
        if predicate(middle):
            lower, any_passed = middle, True
        else:
            upper, any_failed = middle, True
        trials_left = trials_left and trials_left - 1
    if not any_failed and predicate(high):
        return high
    if not any_passed and (lower == high or not predicate(lower)):
        return None
    return lower


def trials_at_most(low: float, high: float, tolerance: float, max_trials: int | None = None) -> int:
    """How often :func:`bisect_largest` calls its predicate at most; arguments as there."""
    halvings = max(math.ceil(math.log2(max(high - low, tolerance) / tolerance)), 0)
    return min(halvings + 1, max_trials or halvings + 1)
