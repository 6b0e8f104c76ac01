"""How near map lines are to each other: chamfer distance between lines that roughly overlap."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist
from shapely import LineString, STRtree, get_coordinates, line_interpolate_point

#: Points that a line is resampled to.
POINTS = 100
#: Half width in metres of the strips that must touch before two lines are compared.
REACH = 2.0
#: The score of two lines that are not compared.
APART = -100.0


def is_line(points: np.ndarray) -> bool:
    """Whether points ``(k, 2)`` are two or more and all finite."""
    return len(points) > 1 and bool(np.isfinite(points).all())


def resample(points: np.ndarray, count: int = POINTS) -> np.ndarray:
    """``count`` points ``(count, 2)`` at equal distances along a line ``(k >= 2, 2)``."""
    line = LineString(np.asarray(points, dtype=np.float64))
    return get_coordinates(line_interpolate_point(line, np.linspace(0, line.length, count)))


def chamfer_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean distance to the nearest point of the other line, averaged over both directions."""
    distance = cdist(first, second)
    return float(distance.min(axis=1).mean() + distance.min(axis=0).mean()) / 2


def _strips(lines: Sequence[np.ndarray]) -> list:
    return [LineString(n).buffer(REACH, cap_style='flat', join_style='mitre') for n in lines]


def score_matrix(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> np.ndarray:
    """Negative chamfer distances ``(predicted, true)`` in metres; higher is better.

    Pairs whose 4 m wide, flat-ended strips don't touch score :data:`APART`.

    Args:
        predicted: Resampled lines ``(POINTS, 2)``; one that isn't finite is apart from all.
        true: Resampled lines ``(POINTS, 2)``.
    """
    scores = np.full((len(predicted), len(true)), APART)
    usable = [i for i, line in enumerate(predicted) if np.isfinite(line).all()]
    if usable and len(true):
        tree = STRtree(_strips([predicted[i] for i in usable]))
        for j, i in tree.query(_strips(true), predicate='intersects').T:
            scores[usable[i], j] = -chamfer_distance(predicted[usable[i]], true[j])
    return scores
