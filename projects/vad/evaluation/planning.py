"""A planned path against the driven one: distances and collisions, step by step."""

import numpy as np

from .occupancy import STEPS, box_collisions, point_collisions

SECONDS = (1, 2, 3)
#: Steps in a second.
RATE = 2


def distances(path: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Metres ``(t,)`` between two paths ``(t, 2)``, step by step."""
    return np.linalg.norm(path.astype(np.float32) - true.astype(np.float32), axis=-1)


def collisions(path: np.ndarray, true: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, ...]:
    """Whether the footprint, and the single cell, of a path collide ``(t,)``.

    Steps at which the driven path's own footprint meets an occupied cell count as no collision.
    """
    possible = ~box_collisions(true, grid)
    return box_collisions(path, grid) & possible, point_collisions(path, grid) & possible


def keep_still() -> np.ndarray:
    """The path ``(6, 2)`` of who does not move."""
    return np.zeros((STEPS, 2), np.float32)


def constant_velocity(history: np.ndarray) -> np.ndarray:
    """The path ``(6, 2)`` of who goes on as in the last interval.

    Args:
        history: ``(2, 2)`` past offsets per step, oldest first.
    """
    return np.arange(1, STEPS + 1, dtype=np.float32)[:, None] * history[-1].astype(np.float32)


def up_to(values: np.ndarray) -> dict[int, float]:
    """The mean over all steps up to each second, of values ``(6,)``."""
    return {s: float(values[: RATE * s].mean(dtype=np.float32)) for s in SECONDS}


def at(values: np.ndarray) -> dict[int, float]:
    """The value at the last step of each second, of values ``(6,)``."""
    return {s: float(values[RATE * s - 1]) for s in SECONDS}


def readings(values: dict[str, np.ndarray]) -> dict[str, float]:
    """``{name}_{s}s`` (mean up to s) and ``{name}_at_{s}s`` of values ``(6,)`` for each name."""
    found = {}
    for name, steps in values.items():
        found.update({f'{name}_{s}s': value for s, value in up_to(steps).items()})
        found.update({f'{name}_at_{s}s': value for s, value in at(steps).items()})
    return found
