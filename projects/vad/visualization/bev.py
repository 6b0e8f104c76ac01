"""The scene from above: boxes, map, motion and plan, predicted and true."""

import math
from typing import Any

import numpy as np
import torch

from ..structures import corners
from .content import Content, Line, Objects
from .palette import EGO, LINES, OBJECTS, OTHER, PLAN, TRUE_PLAN

X_RANGE, Y_RANGE = (-15.0, 15.0), (-30.0, 30.0)
LENGTH, WIDTH = 4.084, 1.85
#: The LiDAR stands this far behind the middle of the vehicle, in metres.
LIDAR_TO_MIDDLE = 0.5
#: These go nowhere, whatever the model says.
STATIC = frozenset(('barrier', 'traffic_cone'))
DASHED = (0, (4, 2))
DOTTED = (0, (1, 1.5))


def draw_bev(axes: Any, content: Content) -> None:
    """Draw a frame into matplotlib axes: x to the right and y ahead, in metres."""
    set_up(axes)
    for line in content.true_lines or []:
        draw_line(axes, line, predicted=False)
    for line in content.lines or []:
        draw_line(axes, line, predicted=True)
    if content.true_objects is not None:
        draw_objects(axes, content.true_objects, predicted=False)
    if content.objects is not None:
        draw_objects(axes, content.objects, predicted=True)
    draw_ego(axes)
    if content.true_plan is not None and len(content.true_plan) > 1:
        draw_plan(axes, content.true_plan, predicted=False)
    if content.plan is not None:
        draw_plan(axes, content.plan, predicted=True)


def set_up(axes: Any) -> None:
    """Limits, equal scales, a light grid of 5 m."""
    axes.set_xlim(*X_RANGE)
    axes.set_ylim(*Y_RANGE)
    axes.set_aspect('equal')
    axes.set_facecolor('#FBFBFA')
    axes.set_xticks(np.arange(-15, 16, 5))
    axes.set_yticks(np.arange(-30, 31, 5))
    axes.grid(color='#E4E4E1', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=2, colors='#555555')
    for spine in axes.spines.values():
        spine.set_color('#BBBBBB')
    axes.set_xlabel('x to the right (m)', fontsize=9, color='#555555', labelpad=2)
    axes.set_ylabel('y ahead (m)', fontsize=9, color='#555555', labelpad=0)


def line_style(predicted: bool) -> dict[str, Any]:
    """How map lines are drawn, without their colour."""
    if predicted:
        return dict(linestyle='-', linewidth=2.0, alpha=0.95, zorder=2.2)
    return dict(linestyle=DASHED, linewidth=1.3, alpha=0.8, zorder=2)


def plan_style(predicted: bool) -> dict[str, Any]:
    """How the ego's path is drawn."""
    if predicted:
        return dict(
            color=PLAN, linestyle='-', linewidth=2.2, marker='o', markersize=4.5,
            markeredgecolor='white', markeredgewidth=0.6, zorder=7,
        )  # fmt: skip
    return dict(
        color=TRUE_PLAN, linestyle=DASHED, linewidth=1.6, marker='o', markersize=4.5,
        markerfacecolor='white', markeredgewidth=1.0, zorder=6,
    )  # fmt: skip


def box_style(color: str, predicted: bool) -> dict[str, Any]:
    """How a box is drawn."""
    from matplotlib.colors import to_rgba

    if predicted:
        return dict(
            facecolor=to_rgba(color, 0.25), edgecolor=color, linewidth=1.6, linestyle='-', zorder=4
        )
    return dict(facecolor='none', edgecolor=color, linewidth=1.2, linestyle=DASHED, zorder=4.5)


def draw_line(axes: Any, line: Line, predicted: bool) -> None:
    """A map line."""
    axes.plot(*line.points.T, color=LINES.get(line.name, OTHER), **line_style(predicted))


def draw_objects(axes: Any, objects: Objects, predicted: bool) -> None:
    """Boxes with a line from the middle to the front, and where they will go."""
    from matplotlib.patches import Polygon

    outlines = corners(torch.from_numpy(objects.boxes)).numpy()[:, :4, :2]
    for i, outline in enumerate(outlines):
        name = objects.names[i]
        color = OBJECTS.get(name, OTHER)
        style = box_style(color, predicted)
        axes.add_patch(Polygon(outline, closed=True, **style))
        nose = np.stack([outline.mean(axis=0), outline[:2].mean(axis=0)])
        axes.plot(*nose.T, color=color, linewidth=style['linewidth'], zorder=style['zorder'])
        if name not in STATIC:
            draw_paths(axes, objects.paths[i], objects.best[i], color, predicted)


def draw_paths(axes: Any, paths: list[np.ndarray], best: int, color: str, predicted: bool) -> None:
    """The futures of one object: the likeliest strong, the others faint; small ones not at all."""
    if not predicted:
        for path in paths:
            if length(path) > 0.5:
                axes.plot(*path.T, color=color, linestyle=DOTTED, linewidth=1.3, zorder=3.2)
        return
    for k, path in enumerate(paths):
        if length(path) <= 0.5:
            continue
        if k == best:
            axes.plot(*path.T, color=color, linewidth=1.8, zorder=3.4)
            axes.plot(*path[-1], color=color, marker='o', markersize=3, zorder=3.4)
        else:
            axes.plot(*path.T, color=color, linewidth=1.0, alpha=0.25, zorder=3)


def length(path: np.ndarray) -> float:
    """Length of a path in metres."""
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


def draw_ego(axes: Any) -> None:
    """The vehicle itself, with an arrowhead that points ahead."""
    from matplotlib.patches import Polygon, Rectangle

    corner = -WIDTH / 2, LIDAR_TO_MIDDLE - LENGTH / 2
    axes.add_patch(
        Rectangle(corner, WIDTH, LENGTH, facecolor=EGO, edgecolor='white', linewidth=0.8, zorder=5)
    )
    tip = LIDAR_TO_MIDDLE + LENGTH / 2 - 0.4
    arrow = [(0, tip), (-0.55, tip - 1.1), (0.55, tip - 1.1)]
    axes.add_patch(Polygon(arrow, closed=True, facecolor='white', linewidth=0, zorder=5.1))


def draw_plan(axes: Any, path: np.ndarray, predicted: bool) -> None:
    """The ego's path, a mark for every step."""
    axes.plot(*path.T, **plan_style(predicted))


def legend_entries(predicted: bool) -> list[Any]:
    """What the colours and strokes mean, as matplotlib artists with labels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = [
        Patch(facecolor=color, label=name.replace('_', ' ')) for name, color in OBJECTS.items()
    ]
    entries += [
        Line2D([], [], color=color, linewidth=3, label=name.replace('ped_', 'pedestrian '))
        for name, color in LINES.items()
    ]
    grey = '#555555'
    if predicted:
        entries += [
            Patch(label='box', **box_style(grey, True)),
            Line2D(
                [],
                [],
                color=grey,
                linewidth=1.8,
                marker='o',
                markersize=3,
                label='likeliest motion',
            ),
            Line2D([], [], color=grey, linewidth=1.0, alpha=0.4, label='other motion'),
            Line2D([], [], label='plan', **plan_style(True)),
        ]
    entries += [
        Patch(label='true box', **box_style(grey, False)),
        Line2D([], [], color=grey, linestyle=DOTTED, linewidth=1.3, label='true motion'),
        Line2D([], [], label='driven path', **plan_style(False)),
    ]
    return entries


def nice_speed(path: np.ndarray | None, seconds: float = 0.5) -> float:
    """Speed in m/s over the first step of a path; 0 where there is none."""
    if path is None or len(path) < 2:
        return 0.0
    return math.dist(path[0], path[1]) / seconds
