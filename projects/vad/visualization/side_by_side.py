"""Several models on one frame: the cameras above, the truth and each model's bird's-eye view below."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .bev import REACH, draw_bev
from .cameras import MOSAIC, draw_cameras
from .frame import DPI, GAP, LEGEND, MARGIN, NUMBERS, TITLE, even
from .legend import draw_legend
from .palette import INK, PAPER
from .view import View

#: Pixels: height of a bird's-eye view, of its heading, and least width of a picture.
TALL, HEADING, LEAST_WIDTH = 560, 22, 1240


def draw_side_by_side(views: Sequence[View], labels: Sequence[str]) -> np.ndarray:
    """A picture ``(H, W, 3)``, uint8, RGB, with even sides.

    Args:
        views: The frame as each model sees it. The cameras show what the last one finds.
        labels: The models' names.
    """
    truth = replace(views[0], found=None, found_lines=None, planned_path=None)
    panels = [truth, *views]
    wide = round(TALL * REACH[0] / REACH[1])
    below = len(panels) * (wide + NUMBERS) + MARGIN * (len(panels) - 1)
    inner = max(below, LEAST_WIDTH)
    names = [name for row in MOSAIC for name in row]
    camera_width = (inner - (len(names) - 1) * GAP) // len(names)
    height, width = views[0].images[0].shape[:2]
    camera = camera_width, round(camera_width * height / width)
    total = (
        even(2 * MARGIN + inner),
        even(2 * MARGIN + TITLE + camera[1] + HEADING + MARGIN + TALL + NUMBERS + LEGEND),
    )
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)

    def place(left: int, top: int, size: tuple[int, int]) -> Axes:
        """Axes by pixels from the upper left."""
        bottom = total[1] - top - size[1]
        box = left / total[0], bottom / total[1], size[0] / total[0], size[1] / total[1]
        return figure.add_axes(box)

    def write(left: int, top: int, text: str, size: int) -> None:
        figure.text(left / total[0], 1 - top / total[1], text, va='top', fontsize=size, color=INK)

    top = MARGIN + TITLE
    draw_cameras(
        {n: place(MARGIN + i * (camera[0] + GAP), top, camera) for i, n in enumerate(names)},
        views[-1],
    )
    top += camera[1] + MARGIN
    step = (inner + MARGIN) // len(panels)
    for i, (label, view) in enumerate(zip(('truth', *labels), panels, strict=True)):
        left = MARGIN + i * step + NUMBERS
        write(left, top, label, 11)
        draw_bev(place(left, top + HEADING, (wide, TALL)), view)
    draw_legend(figure, views[-1], MARGIN / total[0], 1 - (total[1] - LEGEND - 4) / total[1])
    write(MARGIN, MARGIN, views[0].title, 13)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
