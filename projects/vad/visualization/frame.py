"""One picture of a frame: the six cameras, the view from above, what is what."""

import cv2
import numpy as np

from projects.prune_plugin.errors import UserError

from .bev import draw_bev, legend_entries
from .cameras import GAP, draw_mosaic
from .content import Content

DPI = 100
CELL = (560, 315)
MARGIN, HEADER, LEGEND = 16, 44, 92
BEV_WIDTH = 440


def draw_frame(content: Content, title: str = '', cell: tuple[int, int] = CELL) -> np.ndarray:
    """The picture ``(H, W, 3)`` uint8 RGB; its size depends on ``cell`` alone.

    Args:
        content: What to draw.
        title: What stands above it, before the token and the command.
        cell: Width and height of one camera's picture in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mosaic = draw_mosaic(content, cell)
    high, wide = mosaic.shape[:2]
    width = MARGIN + wide + BEV_WIDTH + MARGIN
    height = HEADER + high + GAP + LEGEND
    width, height = width + width % 2, height + height % 2  # videos want even numbers
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    figure.figimage(mosaic, MARGIN, height - HEADER - high, origin='upper')
    left, bottom = MARGIN + wide + 48, 36
    axes = figure.add_axes(
        (left / width, bottom / height, (BEV_WIDTH - 48) / width, (height - bottom - 10) / height)
    )
    draw_bev(axes, content)
    figure.text(
        MARGIN / width, 1 - HEADER / 2 / height, heading(content, title),
        fontsize=12, va='center', color='#222222', parse_math=False,
    )  # fmt: skip
    figure.legend(
        handles=legend_entries(content.predicted),
        loc='upper left',
        bbox_to_anchor=(MARGIN / width, (LEGEND - 2) / height),
        bbox_transform=figure.transFigure,
        borderaxespad=0,
        ncols=7,
        fontsize=10,
        frameon=False,
        columnspacing=2.2,
        handlelength=2.4,
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def heading(content: Content, title: str) -> str:
    """Title, token, command, and what is shown."""
    parts = [title, f'sample {content.token}' if content.token else '']
    parts.append(f'command: {content.command}' if content.command else '')
    parts.append('predictions' if content.predicted else 'ground truth only')
    return '   |   '.join(part for part in parts if part)


def png(picture: np.ndarray) -> bytes:
    """A picture ``(H, W, 3)`` uint8 RGB as a PNG file."""
    done, data = cv2.imencode('.png', picture[..., ::-1])
    if not done:
        raise UserError(f'a picture of the shape {picture.shape} cannot be written as PNG')
    return data.tobytes()
