"""The six cameras with boxes as wire frames and the path on the ground."""

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patheffects import Stroke, withStroke
from matplotlib.transforms import Bbox

from . import projection
from .palette import INK, PAPER, PLAN, color_of
from .view import Objects, View

#: The mosaic, row by row.
MOSAIC = (
    ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'),
    ('CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'),
)
#: Boxes lower than this, in pixels of the picture, get no label.
LABELLED = 16


def draw_cameras(axes: dict[str, Axes], view: View) -> None:
    """Draw every camera of a view that has axes; ``axes`` are by camera name."""
    path = view.true_path if view.planned_path is None else view.planned_path
    color = INK if view.planned_path is None else PLAN
    for name, image, lidar2img in zip(view.cameras, view.images, view.lidar2img, strict=True):
        if name not in axes:
            continue
        draw_image(axes[name], image, name)
        if path is not None:
            draw_ground_path(axes[name], path, view.ground, lidar2img, color)
        if view.shown is not None:
            draw_boxes(axes[name], view.shown, view.classes, lidar2img, image.shape[1::-1])


def draw_image(axes: Axes, image: np.ndarray, name: str) -> None:
    """Draw an image with its pixels as coordinates, and the camera's name."""
    height, width = image.shape[:2]
    shown = axes.get_window_extent()
    size = max(1, round(shown.width)), max(1, round(shown.height))
    smaller = size[0] < width
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(image, extent=extent, interpolation='nearest', aspect='auto', zorder=0)
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(
        0.012, 0.972, name.removeprefix('CAM_').replace('_', ' ').lower(), color=PAPER, fontsize=9,
        transform=axes.transAxes, va='top', zorder=100, weight='bold',
        path_effects=[withStroke(linewidth=2.2, foreground=INK)],
    )  # fmt: skip


def draw_boxes(
    axes: Axes,
    objects: Objects,
    classes: tuple[str, ...],
    lidar2img: np.ndarray,
    size: tuple[int, int],
) -> None:
    """Draw the boxes that a camera sees, the nearest on top, with the front face filled.

    Args:
        axes: With the image's pixels as coordinates.
        objects: What to draw.
        classes: Names of the labels.
        lidar2img: (4, 4).
        size: Width and height of the image.
    """
    corners = projection.to_camera(projection.box_corners(objects.boxes), lidar2img)
    depths = corners[..., 2].mean(axis=1)
    scale = axes.get_window_extent().width / size[0]
    labels = []
    for rank, i in enumerate(np.argsort(-depths)):
        edges = projection.clip_segments(corners[i][projection.EDGES])
        if not projection.visible(edges, *size):
            continue
        color = color_of(classes, objects.labels[i])
        width = float(np.clip(22 / max(depths[i], 1), 0.8, 1.8))
        order = 2 + rank / (1 + len(objects))
        front = projection.clip_polygon(corners[i][projection.FRONT])
        if len(front):
            axes.add_collection(
                PolyCollection([front], facecolors=color, alpha=0.28, lw=0, zorder=order),
                autolim=False,
            )
        halo = [Stroke(linewidth=width + 1.3, foreground=PAPER, alpha=0.75), Stroke()]
        axes.add_collection(
            LineCollection(
                list(edges), colors=color, linewidths=width, zorder=order, path_effects=halo
            ),
            autolim=False,
        )
        if np.ptp(edges[..., 1]) * scale >= LABELLED and depths[i] > 0:
            labels.append((edges, label_of(objects, classes, i), color))
    taken: list[Bbox] = []
    for edges, text, color in reversed(labels):
        draw_label(axes, edges, text, color, size, taken)


def label_of(objects: Objects, classes: tuple[str, ...], index: int) -> str:
    """A box's class and, if it is predicted, its score."""
    label = int(objects.labels[index])
    name = classes[label] if 0 <= label < len(classes) else str(label)
    name = name.replace('_', ' ')
    return name if objects.scores is None else f'{name} {objects.scores[index]:.2f}'


def draw_label(
    axes: Axes,
    edges: np.ndarray,
    text: str,
    color: str,
    size: tuple[int, int],
    taken: list[Bbox],
) -> None:
    """Write ``text`` above a box, unless that would hide a label already there.

    Args:
        axes: With the image's pixels as coordinates.
        edges: The box's edges (k, 2, 2) in pixels.
        text: The label.
        color: Behind it.
        size: Width and height of the image.
        taken: Where labels are, in pixels of the picture; this one is added.
    """
    width, height = size
    points = edges.reshape(-1, 2)
    (left, top), (right, _) = points.min(axis=0), points.max(axis=0)
    if right < 0 or left > 0.97 * width:
        return
    x = max(left, 0.006 * width)
    y = np.clip(top - 0.008 * height, 0.13 * height, 0.98 * height)
    label = axes.text(
        x, y, text, color=PAPER, fontsize=7, va='bottom', ha='left', zorder=50, clip_on=True,
        bbox=dict(boxstyle='square,pad=0.2', facecolor=color, edgecolor='none', alpha=0.9),
    )  # fmt: skip
    place = label.get_window_extent()
    beyond = place.x1 + 3 - axes.get_window_extent().x1
    if beyond > 0:
        label.set_x(x - beyond * width / axes.get_window_extent().width)
        place = label.get_window_extent()
    if any(place.overlaps(other) for other in taken):
        label.remove()
    else:
        taken.append(place.padded(2))


def draw_ground_path(
    axes: Axes, path: np.ndarray, ground: float, lidar2img: np.ndarray, color: str
) -> None:
    """Draw a path (k, 2) in metres as a line on the ground."""
    path = path[np.isfinite(path).all(axis=-1)]
    heights = np.full((len(path), 1), ground)
    points = projection.to_camera(np.concatenate([path, heights], axis=1), lidar2img)
    segments = projection.clip_segments(np.stack([points[:-1], points[1:]], axis=1))
    if not len(segments):
        return
    halo = [Stroke(linewidth=5, foreground=PAPER, alpha=0.7), Stroke()]
    axes.add_collection(
        LineCollection(
            list(segments), colors=color, linewidths=3, zorder=1, path_effects=halo,
            capstyle='round',
        ),
        autolim=False,
    )  # fmt: skip
