"""One picture of one frame: title, six cameras, legend and bird's-eye view."""

import os

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from projects.prune_plugin.common.fileio import atomic_write

from .bev import REACH, draw_bev
from .cameras import MOSAIC, draw_cameras
from .legend import draw_legend
from .palette import INK, PAPER
from .view import View

DPI = 100
#: Pixels: width of a camera, between cameras, round everything, title, legend, BEV's numbers.
CAMERA, GAP, MARGIN, TITLE, LEGEND, NUMBERS = 580, 6, 16, 34, 50, 26


def draw_frame(view: View) -> np.ndarray:
    """A view as a picture ``(H, W, 3)``, uint8, RGB; both sides are even, as videos want them."""
    height, width = view.images[0].shape[:2]
    camera = CAMERA, round(CAMERA * height / width)
    columns, rows = len(MOSAIC[0]), len(MOSAIC)
    mosaic = columns * camera[0] + (columns - 1) * GAP, rows * camera[1] + (rows - 1) * GAP
    tall = mosaic[1] + LEGEND - NUMBERS
    bev = round(tall * REACH[0] / REACH[1]), tall
    total = (
        even(2 * MARGIN + mosaic[0] + MARGIN + NUMBERS + bev[0]),
        even(2 * MARGIN + TITLE + mosaic[1] + LEGEND),
    )
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)

    def place(left: int, top: int, size: tuple[int, int]) -> Axes:
        """Axes by pixels from the upper left."""
        bottom = total[1] - top - size[1]
        box = left / total[0], bottom / total[1], size[0] / total[0], size[1] / total[1]
        return figure.add_axes(box)

    top = MARGIN + TITLE
    axes = {
        name: place(MARGIN + j * (camera[0] + GAP), top + i * (camera[1] + GAP), camera)
        for i, row in enumerate(MOSAIC)
        for j, name in enumerate(row)
    }
    draw_cameras(axes, view)
    draw_bev(place(MARGIN + mosaic[0] + MARGIN + NUMBERS, top, bev), view)
    below = 1 - (top + mosaic[1] + 10) / total[1]
    draw_legend(figure, view, MARGIN / total[0], below)
    figure.text(
        MARGIN / total[0], 1 - MARGIN / total[1], view.title, va='top', fontsize=13, color=INK
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def even(pixels: int) -> int:
    """The next even number."""
    return pixels + pixels % 2


def write_png(picture: np.ndarray, path: str | os.PathLike) -> None:
    """Write a picture ``(H, W, 3)``, RGB: whole, or not at all."""
    _, encoded = cv2.imencode('.png', picture[..., ::-1])
    with atomic_write(path, 'wb') as file:
        file.write(encoded.tobytes())
