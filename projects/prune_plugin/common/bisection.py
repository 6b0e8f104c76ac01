"""The largest ratio at which something still holds."""

from collections.abc import Callable


def largest_holding(
    holds: Callable[[float], bool],
    low: float,
    high: float,
    tolerance: float,
    trials: int | None = None,
) -> float | None:
    """Bisect for the largest number at which ``holds`` is true, if it is so below and not above.

    ``low`` and ``high`` themselves are tried only when nothing between them has settled them. What is
    given back was always tried. If ``holds`` changes more than once it is one of the changes: at most
    ``tolerance`` above it something was tried that doesn't hold.

    Args:
        holds: Asked at most once for each number.
        low: The smallest number.
        high: The largest number.
        tolerance: How close is close enough.
        trials: Ask at most so often, at least 2; the tolerance may then not be reached. None: no limit.

    Returns:
        The number, in [low, high]; None if none that was tried holds.

    Example:
        >>> largest_holding(lambda x: x <= 0.3, 0.0, 1.0, 0.01)
        0.296875
    """
    bottom, top, held, failed, left = low, high, False, False, trials
    while top - bottom > tolerance and (left is None or left > 1):
        middle = (bottom + top) / 2
        if holds(middle):
            bottom, held = middle, True
        else:
            top, failed = middle, True
        left = left and left - 1
    if not failed and holds(high):
        return high
    if not held and (bottom == high or not holds(bottom)):
        return None
    return bottom
