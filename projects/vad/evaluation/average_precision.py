"""Which predictions are right, and the area under precision over recall."""

import numpy as np


def true_positives(matrix: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each prediction ``(n,)`` of one sample is right.

    Best score first, a prediction takes its nearest true line if that is within ``threshold`` and
    nobody has it yet; it gets no second choice.

    Args:
        matrix: Negative distances ``(n, m)`` to the true lines.
        scores: ``(n,)``.
        threshold: Largest distance in metres.
    """
    right = np.zeros(len(scores), dtype=bool)
    if not matrix.size:
        return right
    nearest = matrix.argmax(axis=1)
    taken: set[int] = set()
    for i in np.argsort(-scores, kind='stable'):
        j = int(nearest[i])
        if matrix[i, j] >= -threshold and j not in taken:
            taken.add(j)
            right[i] = True
    return right


def average_precision(right: np.ndarray, scores: np.ndarray, num_true: int) -> float:
    """Area under the monotone precision-recall curve, in [0, 1]; 0 without ground truth.

    Args:
        right: ``(n,)`` whether each prediction of the data set is right.
        scores: ``(n,)``; equal ones keep their order.
        num_true: True lines in the data set.
    """
    if not num_true or not len(scores):
        return 0.0
    hits = right[np.argsort(-scores, kind='stable')].cumsum()
    recall = hits / num_true
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.diff(recall, prepend=0.0) @ envelope)
