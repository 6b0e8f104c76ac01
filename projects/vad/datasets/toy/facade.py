"""The look of a building's wall: a shop front, rows of windows, ledges."""

import numpy as np

STOREY, SHOP = 3.1, 3.7  # metres
TONES = np.array([0.34, 0.44, 0.38, 0.52, 0.40, 0.62, 0.36], np.float32)


def facade(
    origin: np.ndarray, normal: np.ndarray, up: np.ndarray, eye: float, size: float, top: float
):
    """A painter for ``Canvas.face``: the factor by which the wall's colour is multiplied.

    Args:
        origin: A point of the wall, like all that follows in camera axes.
        normal: Of the wall.
        up: Unit vector.
        eye: Height of the camera over the ground.
        size: Distance of the windows, metres.
        top: Height of the building.
    """
    along = np.cross(up, normal)
    along = along / np.linalg.norm(along)

    def paint(x, y, z):
        u = (x - origin[0]) * along[0] + (y - origin[1]) * along[1] + (z - origin[2]) * along[2]
        v = x * up[0] + y * up[1] + z * up[2] + eye
        i, j = u / size, (v - SHOP) / STOREY
        a, b = i - np.floor(i), j - np.floor(j)
        shop = v < SHOP
        pane = (a > 0.24) & (a < 0.76) & (b > 0.24) & (b < 0.76) & (v < top - 0.9)
        tone = TONES[(np.floor(i) * 5 + np.floor(j) * 3).astype(np.int64) % len(TONES)]
        front = (a > 0.08) & (a < 0.92) & (v > 0.5) & (v < 2.7)
        out = np.where(np.where(shop, front, pane), np.where(shop, 0.45, tone), 1.0)
        ledge = (np.abs(v - SHOP + 0.25) < 0.22) | (v > top - 0.4)
        return np.where(ledge, 1.12, out)

    return paint
