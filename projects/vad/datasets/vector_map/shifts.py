"""The orders in which one and the same line may be drawn, all of them equally right.

An open line has two: from either end. A closed one may start anywhere. Five readings of "anywhere"
exist, v0 to v4; the published models were trained with v2. Each returns every order it knows, and
how many rows a target has room for.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .sampling import clamp, even_distances, fixed_points, resample

#: What fills rows for which there is no order.
PADDING = -10000.0


class Pattern(NamedTuple):
    """One reading.

    Attributes:
        orders: Of vertices ``(k, 2)``, a number of points and a patch: ``(s, num, 2)`` float32.
        rows: Rows of a target, of the number of points.
        two_ways: Whether the second half of a closed line's orders are the first half's, reversed;
            where there are too many, both halves keep the same starting points.
    """

    orders: Callable[[np.ndarray, int, tuple[float, float]], np.ndarray]
    rows: Callable[[int], int]
    two_ways: bool = False


def shifted_points(
    vertices: np.ndarray,
    num: int,
    patch: tuple[float, float],
    pattern: Pattern,
    rng: np.random.Generator | np.random.RandomState,
) -> np.ndarray:
    """All orders of a line, a random choice of them where there are too many, padded.

    Args:
        vertices: ``(k, 2)`` metres.
        num: Points of each order.
        patch: Extent in y and x, metres.
        pattern: The reading.
        rng: Chooses.

    Returns:
        ``(pattern.rows(num), num, 2)`` float32; missing rows hold ``PADDING``.
    """
    orders = pattern.orders(np.asarray(vertices, dtype=np.float64), num, patch)
    rows = pattern.rows(num)
    if len(orders) > rows:
        ways = 2 if pattern.two_ways else 1
        starts = len(orders) // ways
        chosen = rng.choice(starts, rows // ways, replace=False)
        orders = np.concatenate([orders[chosen + way * starts] for way in range(ways)])
    padded = np.full((rows, num, 2), PADDING, dtype=np.float32)
    padded[: len(orders)] = orders
    return padded


def is_closed(points: np.ndarray) -> bool:
    """Whether a line ends exactly where it starts."""
    return bool((points[0] == points[-1]).all())


def both_ends(points: np.ndarray) -> np.ndarray:
    """An open line, forwards and backwards."""
    return np.stack([points, points[::-1]])


def rolls(points: np.ndarray) -> np.ndarray:
    """``(k, k, 2)``: points ``(k, 2)``, moved on by 0 to k - 1."""
    k = len(points)
    return points[(np.arange(k) - np.arange(k)[:, None]) % k]


def closed_rolls(points: np.ndarray) -> np.ndarray:
    """``(k - 1, k, 2)``: a closed line from each of its different points, closed again."""
    turned = rolls(points[:-1])
    return np.concatenate([turned, turned[:, :1]], axis=1)


def _v0(vertices: np.ndarray, num: int, patch: tuple[float, float]) -> np.ndarray:
    points = fixed_points(vertices, num, patch)
    return rolls(points) if is_closed(points) else both_ends(points)


def _v1(vertices: np.ndarray, num: int, patch: tuple[float, float]) -> np.ndarray:
    points = fixed_points(vertices, num, patch)
    return closed_rolls(points) if is_closed(points) else both_ends(points)


def _v2(vertices: np.ndarray, num: int, patch: tuple[float, float]) -> np.ndarray:
    if not is_closed(vertices):
        return both_ends(fixed_points(vertices, num, patch))
    return _sample_each(closed_rolls(vertices), even_distances(vertices, num), patch)


def _v3(vertices: np.ndarray, num: int, patch: tuple[float, float]) -> np.ndarray:
    if not is_closed(vertices):
        return both_ends(fixed_points(vertices, num, patch))
    turned = _both_ways(vertices)
    return _sample_each(turned, even_distances(vertices, num), patch)


def _v4(vertices: np.ndarray, num: int, patch: tuple[float, float]) -> np.ndarray:
    points = fixed_points(vertices, num, patch)
    return _both_ways(points) if is_closed(points) else both_ends(points)


def _both_ways(closed: np.ndarray) -> np.ndarray:
    """A closed line from each of its points, then reversed from each.

    Reversed without its last point: ``a b c d a`` gives ``d c b a d``.
    """
    different = closed[:-1][::-1]
    backwards = np.concatenate([different, different[:1]])
    return np.concatenate([closed_rolls(closed), closed_rolls(backwards)])


def _sample_each(
    lines: np.ndarray, distances: np.ndarray, patch: tuple[float, float]
) -> np.ndarray:
    return clamp(np.stack([resample(line, distances) for line in lines]), patch)


SHIFT_PATTERNS = {
    'v0': Pattern(_v0, rows=lambda num: num),
    'v1': Pattern(_v1, rows=lambda num: num - 1),
    'v2': Pattern(_v2, rows=lambda num: num - 1),
    'v3': Pattern(_v3, rows=lambda num: 2 * (num - 1), two_ways=True),
    'v4': Pattern(_v4, rows=lambda num: 2 * (num - 1), two_ways=True),
}
