"""What the colours and lines of a picture mean."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .bev import DASHES
from .palette import CLASS_COLORS, EGO, INK, MAP_COLORS, PLAN, color_of
from .view import View


def draw_legend(figure: Figure, view: View, left: float, top: float) -> list[Legend]:
    """Write two lines of legend below and right of a point in shares of the figure."""
    style = dict(
        frameon=False, fontsize=9, labelcolor=INK, handlelength=1.8, handletextpad=0.5,
        columnspacing=1.4, borderaxespad=0, borderpad=0, loc='upper left',
    )  # fmt: skip
    down = 20 / (figure.get_figheight() * figure.dpi)
    legends = []
    for row, handles in enumerate((class_handles(view), line_handles(view))):
        legend = figure.legend(
            handles=handles, ncols=len(handles), bbox_to_anchor=(left, top - row * down), **style
        )
        legends.append(legend)
    return legends


def class_handles(view: View) -> list[Patch]:
    """One patch per class."""
    patches = []
    for label, name in enumerate(view.classes):
        color = color_of(view.classes, label, CLASS_COLORS)
        name = name.replace('_', ' ')
        patches.append(Patch(facecolor=color + '55', edgecolor=color, linewidth=1.6, label=name))
    return patches


def line_handles(view: View) -> list[Line2D | Patch]:
    """Map classes, and how truth and prediction are told apart."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=color_of(view.map_classes, k, MAP_COLORS), lw=1.8, label=name)
        for k, name in enumerate(n.replace('_', ' ') for n in view.map_classes)
    ]
    handles.append(Patch(facecolor=EGO, label='ego'))
    if view.planned_path is not None:
        handles.append(Line2D([], [], color=PLAN, lw=3.4, marker='o', ms=6, label='planned path'))
    if view.true_path is not None:
        true = dict(color=INK, lw=1.2, ls=DASHES, marker='o', ms=2.6)
        handles.append(Line2D([], [], **true, label='true path'))
    if view.found is not None:
        motion = 'modes of motion' if view.found.best is None else 'motion, best mode strong'
        handles.append(Line2D([], [], color=CLASS_COLORS['car'], lw=1.0, label=motion))
        if view.truth is not None:
            true = dict(color=INK, lw=1.0, ls=DASHES)
            handles.append(Line2D([], [], **true, label='true box, motion'))
        if view.true_lines is not None:
            handles.append(Line2D([], [], color=INK, lw=4.5, alpha=0.3, label='true map'))
    elif view.truth is not None and np.isfinite(view.truth.paths[..., 1:, :]).any():
        handles.append(Line2D([], [], color=INK, lw=1.0, ls=DASHES, label='true motion'))
    return handles
