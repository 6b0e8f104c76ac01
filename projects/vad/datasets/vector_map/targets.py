"""What the map head is taught: labels, points, rectangles and all orders of the points."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from projects.prune_plugin.common.errors import UserError

from .sampling import bounds, fixed_points
from .shifts import SHIFT_PATTERNS, shifted_points


def build_map_targets(
    vectors: Sequence[dict],
    patch: tuple[float, float] = (60.0, 30.0),
    num_pts: int = 20,
    pattern: str = 'v2',
    rng: np.random.Generator | np.random.RandomState | None = None,
) -> dict[str, Tensor]:
    """Map elements as tensors, ready for an ``InstanceData``.

    Args:
        vectors: For each element its ``label`` and ``pts``, vertices ``(k, 2)`` in metres.
        patch: Extent in y and x, metres; what lies outside is moved to its border.
        num_pts: Points of each element.
        pattern: Which orders count as right: ``v0`` to ``v4``.
        rng: Chooses among the orders where a closed line has too many. Without it the vertices
            themselves settle the choice: the same frame gives the same targets in every epoch.

    Returns:
        ``labels`` (m,) int64, ``pts`` (m, num_pts, 2), ``bboxes`` (m, 4) x and y min, x and y max,
        ``shifted_pts`` (m, S, num_pts, 2) whose missing rows hold -10000; float32, metres.

    Raises:
        UserError: the pattern is unknown.
    """
    if pattern not in SHIFT_PATTERNS:
        raise UserError(f'shift pattern {pattern!r} is none of {", ".join(SHIFT_PATTERNS)}')
    orders = SHIFT_PATTERNS[pattern]
    lines = [np.asarray(vector['pts'], dtype=np.float64) for vector in vectors]
    labels = [int(vector['label']) for vector in vectors]
    shifted = [
        shifted_points(line, num_pts, patch, orders, rng if rng is not None else _own_rng(line))
        for line in lines
    ]
    return dict(
        labels=torch.tensor(labels, dtype=torch.long),
        pts=_stack([fixed_points(line, num_pts, patch) for line in lines], (num_pts, 2)),
        bboxes=_stack([bounds(line, patch) for line in lines], (4,)),
        shifted_pts=_stack(shifted, (orders.rows(num_pts), num_pts, 2)),
    )


def _own_rng(vertices: np.ndarray) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(vertices.astype(np.float32).tobytes()))


def _stack(arrays: list[np.ndarray], shape: tuple[int, ...]) -> Tensor:
    if not arrays:
        return torch.zeros(0, *shape)
    return torch.from_numpy(np.stack(arrays))
