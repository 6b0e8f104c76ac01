"""Motion forecasting scored on detected agents: matching, and the counters behind EPA.

EPA (end-to-end prediction accuracy) was introduced with ViP3D (Gu et al., CVPR 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

#: The classes that are reported, and what is counted as each.
GROUPS = {'car': ('car', 'truck', 'bus', 'trailer'), 'pedestrian': ('pedestrian',)}
#: Classes that take part in the matching: what can move, except construction vehicles.
DYNAMIC = ('car', 'truck', 'bus', 'trailer', 'motorcycle', 'bicycle', 'pedestrian')
COUNTERS = ('gt', 'cnt_ade', 'cnt_fde', 'hit', 'fp', 'ADE', 'FDE', 'MR')
#: Largest distance in metres for a match, and for the end of a path to count as a hit.
MATCH_DISTANCE = 2.0
FAR = 1e6


@dataclass(frozen=True)
class Agents:
    """Agents of one sample: predicted or true.

    Attributes:
        centers: ``(n, 2)`` x, y in metres.
        labels: ``(n,)`` class indices.
        offsets: ``(n, modes, steps, 2)`` offsets from step to step in metres; true agents have one
            mode.
        valid: ``(n, steps)`` whether the step exists; None for predictions.
    """

    centers: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    valid: np.ndarray | None = None

    def path(self, i: int, steps: int) -> np.ndarray:
        """Positions ``(modes, steps, 2)`` of agent ``i`` in its first ``steps`` steps."""
        return self.offsets[i, :, :steps].cumsum(axis=1, dtype=np.float32) + self.centers[i]


def true_agents(boxes: np.ndarray, labels: np.ndarray, attributes: np.ndarray) -> Agents:
    """Ground truth from boxes ``(n, 9)`` and attribute vectors ``(n, 34)``."""
    return Agents(
        boxes[:, :2], labels, attributes[:, :12].reshape(-1, 1, 6, 2), attributes[:, 12:18] == 1
    )


def predicted_agents(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, trajs: np.ndarray, score_thr: float
) -> Agents:
    """Predictions ``(n, 9)``, ``(n,)``, ``(n,)``, ``(n, modes, 12)`` scored above ``score_thr``."""
    keep = scores > score_thr
    modes = trajs.shape[1]
    return Agents(boxes[keep, :2], labels[keep], trajs[keep].reshape(-1, modes, 6, 2))


def match(predicted: Agents, true: Agents, dynamic: Sequence[int]) -> np.ndarray:
    """For each true agent the predicted one that is matched to it, or -1.

    One to one, with the least sum of centre distances, at most :data:`MATCH_DISTANCE` apart. Only
    labels in ``dynamic`` take part; apart from that classes play no role.
    """
    distance = np.linalg.norm(predicted.centers[:, None] - true.centers[None], axis=-1)
    distance[~np.isin(predicted.labels, dynamic)] = FAR
    distance[:, ~np.isin(true.labels, dynamic)] = FAR
    distance[~(distance <= MATCH_DISTANCE)] = FAR
    matched = np.full(len(true.labels), -1, dtype=np.int64)
    for row, column in zip(*linear_sum_assignment(distance), strict=True):
        if distance[row, column] <= MATCH_DISTANCE:
            matched[column] = row
    return matched


def count(predicted: Agents, true: Agents, classes: Sequence[str]) -> dict[str, float]:
    """The counters of one sample, ``{counter}_{group}``; they are summed over samples.

    - ``gt``: true agents all of whose steps exist
    - ``fp``: predictions that are matched to nothing
    - ``cnt_ade``, ``ADE``: matched true agents with at least one step, and the sum over them of the
      mean error over those steps, of the mode where it is least
    - ``cnt_fde``, ``FDE``: those with all steps, and the sum of their final errors, of the mode
      where it is least (which may be another)
    - ``hit``, ``MR``: how many of these final errors are at most, and above, 2 m

    Paths start at each one's own centre, so errors of detection are part of the errors here.

    Args:
        predicted: Predictions, filtered by score.
        true: Ground truth.
        classes: Names of the labels.
    """
    group_of = {i: g for g, names in GROUPS.items() for i, c in enumerate(classes) if c in names}
    dynamic = [i for i, name in enumerate(classes) if name in DYNAMIC]
    matched = match(predicted, true, dynamic)
    found = {f'{counter}_{group}': 0.0 for counter in COUNTERS for group in GROUPS}
    for i in np.setdiff1d(np.arange(len(predicted.labels)), matched):
        if group := group_of.get(int(predicted.labels[i])):
            found[f'fp_{group}'] += 1
    for i, label in enumerate(true.labels):
        group, steps = group_of.get(int(label)), int(true.valid[i].sum())
        if group is None:
            continue
        complete = steps == true.valid.shape[1]
        found[f'gt_{group}'] += complete
        if matched[i] < 0 or not steps:
            continue
        error = predicted.path(matched[i], steps) - true.path(i, steps)
        error = np.linalg.norm(error, axis=-1)
        found[f'cnt_ade_{group}'] += 1
        found[f'ADE_{group}'] += float(error.mean(axis=-1).min())
        if complete:
            final = float(error[:, -1].min())
            found[f'cnt_fde_{group}'] += 1
            found[f'FDE_{group}'] += final
            found[f'hit_{group}' if final <= MATCH_DISTANCE else f'MR_{group}'] += 1
    return found
