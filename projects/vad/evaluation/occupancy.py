"""Where other agents will be, and whether the vehicle's footprint meets them, on a grid.

The grid is ST-P3's (Hu et al., ECCV 2022): 200 x 200 cells of 0.5 m round the lidar, row 0 at
y = +50 m, column 0 at x = -50 m. Roundings are those of the published numbers and single precision
is kept on purpose.
"""

from collections.abc import Sequence

import cv2
import numpy as np

CELL = np.float32(0.5)
CELLS = 200
#: Metres from the centre to the outer edge, and to the centre of the outermost cell.
EDGE = np.float32(50.0)
FIRST = np.float32(49.75)
#: Length and width of the vehicle in metres; its centre lies this far ahead of the lidar.
EGO_LENGTH, EGO_WIDTH, EGO_AHEAD = 4.084, 1.85, 0.5

STEPS = 6
#: What the vehicle can collide with: barriers and cones are left out.
OBSTACLES = (
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'motorcycle', 'bicycle', 'pedestrian',
)  # fmt: skip


def future_corners(boxes: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Corners ``(n, 6, 4, 2)`` in metres of boxes ``(n, 9)`` moved along their true paths.

    Args:
        boxes: VAD boxes.
        attributes: ``(n, 34)``, of which the path offsets and the yaw changes are used.
    """
    boxes, attributes = boxes.astype(np.float32), attributes.astype(np.float32)
    centers = attributes[:, :12].reshape(-1, STEPS, 2).cumsum(axis=1, dtype=np.float32)
    centers = centers + boxes[:, None, :2]
    yaw = attributes[:, 28:34].cumsum(axis=1, dtype=np.float32)
    yaw = yaw - (boxes[:, 6:7] + np.float32(np.pi / 2))
    along = boxes[:, None, None, 4] / 2 * np.array([1, -1, -1, 1], np.float32)
    across = boxes[:, None, None, 3] / 2 * np.array([1, 1, -1, -1], np.float32)
    cos, sin = np.cos(yaw)[..., None], np.sin(yaw)[..., None]
    corners = np.stack([cos * along - sin * across, sin * along + cos * across], axis=-1)
    return corners + centers[:, :, None]


def occupied(boxes: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Cells ``(6, 200, 200)`` that agents cover at each future step.

    Args:
        boxes: ``(n, 9)`` VAD boxes; not changed.
        attributes: ``(n, 34)``; an agent is drawn at the steps that its mask holds.
    """
    grid = np.zeros((STEPS, CELLS, CELLS), np.uint8)
    x, y = np.moveaxis(future_corners(boxes, attributes), -1, 0)
    pixels = np.stack([x + EDGE, EDGE - y], axis=-1) / CELL
    pixels = np.round(pixels).astype(np.int32)
    for agent, step in np.argwhere(attributes[:, 12:18] == 1):
        cv2.fillPoly(grid[step], [pixels[agent, step]], 1)
    return grid.astype(bool)


def obstacles(labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Which agents ``(n,)`` the vehicle can collide with.

    The original tells it from the row of the agent's category in category.json, which is right only
    for the file of 32 categories that comes with nuScenes-lidarseg; there both agree.

    Args:
        labels: ``(n,)`` class indices.
        classes: Their names.
    """
    return np.isin(labels, [i for i, name in enumerate(classes) if name in OBSTACLES])


def _footprint() -> tuple[np.ndarray, np.ndarray]:
    """Cell offsets ``(k,)`` along y and x of the vehicle standing at the lidar's origin."""

    def inside(low: float, high: float) -> np.ndarray:
        first = np.ceil((low + FIRST) / CELL)
        return np.arange(first, np.floor((high + FIRST) / CELL) + 1)

    along = inside(EGO_AHEAD - EGO_LENGTH / 2, EGO_AHEAD + EGO_LENGTH / 2)
    across = inside(-EGO_WIDTH / 2, EGO_WIDTH / 2)
    return np.repeat(along, len(across)), np.tile(across, len(along))


def _finite(path: np.ndarray) -> np.ndarray:
    """The path in single precision, with what is not a number moved far off the grid."""
    return np.nan_to_num(path.astype(np.float32), nan=1e4, posinf=1e4, neginf=-1e4)


def box_collisions(path: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Whether the vehicle's footprint meets an occupied cell, at each step.

    The footprint is never turned, and what leaves the grid is moved to its border.

    Args:
        path: ``(t, 2)`` positions x, y of the lidar in metres.
        grid: ``(>= t, 200, 200)`` occupied cells.
    """
    along, across = _footprint()
    scaled = _finite(path) / CELL
    rows = np.trunc(CELLS - (scaled[:, 1:] + along)).clip(0, CELLS - 1).astype(np.int64)
    columns = np.trunc(scaled[:, :1] + across).clip(0, CELLS - 1).astype(np.int64)
    return grid[np.arange(len(path))[:, None], rows, columns].any(axis=1)


def point_collisions(path: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Whether one single cell is occupied, at each step, as the original looks it up.

    The original takes a cell some 25 m away from the vehicle (half the grid's offset instead of
    all of it), so this figure can be compared with the original's but means nothing.

    Args:
        path: ``(t, 2)`` positions x, y in metres.
        grid: ``(>= t, 200, 200)`` occupied cells.
    """
    path = _finite(path)
    rows = np.trunc((FIRST / 2 - path[:, 1]) / CELL).astype(np.int64)
    columns = np.trunc((FIRST / 2 + path[:, 0]) / CELL).astype(np.int64)
    inside = (rows >= 0) & (rows < CELLS) & (columns >= 0) & (columns < CELLS)
    steps = np.arange(len(path))
    return inside & grid[steps, rows.clip(0, CELLS - 1), columns.clip(0, CELLS - 1)]
