"""The bird's-eye view: boxes, map, motion and paths round the vehicle."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke

from ..evaluation.occupancy import EGO_AHEAD, EGO_LENGTH, EGO_WIDTH
from .palette import EGO, GREY, INK, MAP_COLORS, PALE, PAPER, PLAN, color_of
from .projection import box_corners
from .view import Lines, Objects, View

#: What is shown, in metres: as far to each side, and as far ahead and behind.
REACH = (15.0, 30.0)
DASHES = (0, (3.2, 2.0))


def draw_bev(axes: Axes, view: View) -> None:
    """Draw a view from above: x to the right, y ahead, in metres.

    Predictions are solid and coloured, the truth is dashed and dark. Without predictions the truth
    takes their place.
    """
    draw_ground(axes)
    alone = view.found is None
    if view.true_lines is not None:
        draw_lines(axes, view.true_lines, view.map_classes, dashed=not alone)
    if view.found_lines is not None:
        draw_lines(axes, view.found_lines, view.map_classes)
    if view.found is not None:
        draw_motion(axes, view.found, view.classes)
        draw_boxes(axes, view.found, view.classes)
    if view.truth is not None:
        draw_motion(axes, view.truth, view.classes, dashed=True)
        draw_boxes(axes, view.truth, view.classes, dashed=not alone)
    draw_ego(axes)
    if view.true_path is not None:
        draw_path(axes, view.true_path, INK, dashed=True)
    if view.planned_path is not None:
        draw_path(axes, view.planned_path, PLAN)


def draw_ground(axes: Axes) -> None:
    """Limits, a grid of 5 m and a scale."""
    across, along = REACH
    axes.set(xlim=(-across, across), ylim=(-along, along), aspect='equal', facecolor='#fafbfc')
    axes.set_xticks(np.arange(-10, 11, 10))
    axes.set_yticks(np.arange(-along, along + 1, 10))
    axes.set_xticks(np.arange(-across, across + 1, 5), minor=True)
    axes.set_yticks(np.arange(-along, along + 1, 5), minor=True)
    axes.grid(which='both', color=PALE, linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(which='both', length=0, labelsize=8, colors=GREY)
    axes.spines[:].set_color(GREY)
    x, y = 4.2, 1.2 - along
    corners = [(x - 0.4, y - 0.5), (x + 10.4, y - 0.5), (x + 10.4, y + 2), (x - 0.4, y + 2)]
    axes.add_patch(Polygon(corners, facecolor=PAPER, edgecolor='none', alpha=0.85, zorder=9))
    axes.plot([x, x + 10], [y, y], color=INK, linewidth=2, solid_capstyle='butt', zorder=9)
    axes.text(x + 5, y + 0.35, '10 m', ha='center', va='bottom', fontsize=8, color=INK, zorder=9)


def draw_boxes(axes: Axes, objects: Objects, classes: tuple[str, ...], dashed: bool = False):
    """Outlines, each with a line from the centre to the front."""
    if not len(objects):
        return
    outlines = box_corners(objects.boxes)[:, :4, :2]
    centers = objects.boxes[:, :2]
    noses = np.stack([centers, outlines[:, :2].mean(axis=1)], axis=1)
    if dashed:
        style = dict(facecolors='none', edgecolors=INK, linewidths=1.0, linestyles=[DASHES])
        axes.add_collection(PolyCollection(outlines, zorder=5, **style))
        axes.add_collection(LineCollection(noses, colors=INK, linewidths=0.8, zorder=5))
        return
    colors = [color_of(classes, label) for label in objects.labels]
    axes.add_collection(PolyCollection(outlines, facecolors=colors, alpha=0.22, lw=0, zorder=4))
    axes.add_collection(
        PolyCollection(outlines, facecolors='none', edgecolors=colors, linewidths=1.6, zorder=4)
    )
    axes.add_collection(LineCollection(noses, colors=colors, linewidths=1.6, zorder=4))


def draw_motion(axes: Axes, objects: Objects, classes: tuple[str, ...], dashed: bool = False):
    """Where objects go: the most likely mode strong, others faint; all alike without scores."""
    for i, modes in enumerate(objects.paths):
        color = INK if dashed else color_of(classes, objects.labels[i])
        for mode, path in enumerate(modes):
            if dashed:
                style = dict(linewidth=1.0, linestyle=DASHES, zorder=5)
            elif objects.best is None:
                style = dict(linewidth=1.0, alpha=0.55, zorder=3)
            else:
                best = mode == objects.best[i]
                style = dict(linewidth=1.6 if best else 0.8, alpha=1 if best else 0.3, zorder=3)
            axes.plot(*path.T, color=color, **style)
            if dashed:
                ends = path[np.isfinite(path).all(axis=-1)][-1:]
                if np.linalg.norm(ends - path[:1]) > 0.5:
                    axes.plot(*ends.T, '.', color=color, markersize=4, zorder=5)


def draw_lines(axes: Axes, lines: Lines, classes: tuple[str, ...], dashed: bool = False) -> None:
    """Map lines; true ones beside predictions are wide and pale."""
    colors = [color_of(classes, label, MAP_COLORS) for label in lines.labels]
    style = dict(linewidths=1.8, zorder=2)
    if dashed:
        style = dict(linewidths=4.5, alpha=0.3, zorder=1)
    axes.add_collection(LineCollection(list(lines.points), colors=colors, **style))


def draw_ego(axes: Axes) -> None:
    """The vehicle's footprint and an arrowhead ahead."""
    x, y = EGO_WIDTH / 2, EGO_LENGTH / 2
    corners = np.array([(-x, -y), (x, -y), (x, y), (-x, y)]) + (0, EGO_AHEAD)
    axes.add_patch(Polygon(corners, facecolor=EGO, edgecolor=PAPER, linewidth=1, zorder=6))
    arrow = np.array([(-0.5, 0.6), (0, 1.5), (0.5, 0.6)]) + (0, EGO_AHEAD)
    axes.add_patch(Polygon(arrow, facecolor=PAPER, edgecolor='none', zorder=6))


def draw_path(axes: Axes, path: np.ndarray, color: str, dashed: bool = False) -> None:
    """A path of the vehicle, with a dot each half second; a dashed one lies thin on a solid one."""
    style = dict(
        linewidth=3.4, markersize=6, path_effects=[withStroke(linewidth=5, foreground=PAPER)]
    )
    if dashed:
        style = dict(linewidth=1.2, markersize=2.6, linestyle=DASHES)
    zorder = 8 if dashed else 7
    axes.plot(*path.T, color=color, marker='o', markevery=(1, 1), zorder=zorder, **style)
