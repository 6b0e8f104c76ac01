"""The six pictures with what was found in them: boxes as wire frames, map lines, the plan."""

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..datasets.infos import CAMERAS
from ..datasets.transforms.load_images import read_image
from ..structures import corners
from .content import Content, Line, Objects
from .palette import LINES_ON_ROAD, OBJECTS, OTHER, PLAN, rgb
from .projection import (
    clip_polygon,
    clip_segment,
    densify,
    on_road,
    ribbon,
    to_camera,
    to_pixels,
)

#: Two rows of three, as a driver would look round.
MOSAIC = (
    ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'),
    ('CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'),
)
#: Corners as ``structures.corners`` numbers them: bottom, top, uprights.
EDGES = (
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 0),
    (4, 5),
    (5, 6),
    (6, 7),
    (7, 4),
    (0, 4),
    (1, 5),
    (2, 6),
    (3, 7),
)
FRONT = (0, 1, 5, 4)
GAP = 6
SHIFT = 4  # cv2 takes pixels in 1/16
FAR_OUT = 30000.0
LEAST_HEIGHT = 14  # a label is drawn on boxes at least this many pixels high


def draw_mosaic(content: Content, cell: tuple[int, int]) -> np.ndarray:
    """All six pictures with their drawings, ``(H, W, 3)`` uint8 RGB, white between them.

    Args:
        content: Predictions are drawn if there are some, else the truth.
        cell: Width and height of one picture in pixels.
    """
    width, height = cell
    rows, columns = len(MOSAIC), len(MOSAIC[0])
    shape = rows * height + (rows - 1) * GAP, columns * width + (columns - 1) * GAP, 3
    mosaic = np.full(shape, 255, np.uint8)
    for row, names in enumerate(MOSAIC):
        for column, name in enumerate(names):
            top, left = row * (height + GAP), column * (width + GAP)
            mosaic[top : top + height, left : left + width] = draw_camera(content, name, cell)
    return mosaic


def draw_camera(content: Content, name: str, cell: tuple[int, int]) -> np.ndarray:
    """One camera's picture ``(H, W, 3)`` uint8 RGB at the size ``cell`` (width, height)."""
    index = CAMERAS.index(name)
    image = read_image(content.img_paths[index])[..., ::-1]
    scale = np.diag([cell[0] / image.shape[1], cell[1] / image.shape[0], 1.0])
    smaller = cell[0] < image.shape[1]
    image = np.ascontiguousarray(
        cv2.resize(image, cell, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    )
    lidar2img = scale @ content.lidar2img[index][:3]
    lines = content.lines if content.predicted else content.true_lines
    for line in lines or []:
        draw_line(image, line, lidar2img, content.lidar2ego)
    plan = content.plan if content.predicted else content.true_plan
    if plan is not None:
        draw_plan(image, plan, lidar2img, content.lidar2ego)
    objects = content.objects if content.predicted else content.true_objects
    labels = [] if objects is None else draw_boxes(image, objects, lidar2img)
    return write(image, name.removeprefix('CAM_').replace('_', ' ').lower(), labels)


def fixed(pixels: np.ndarray) -> np.ndarray:
    """Pixels as the integers that OpenCV draws between pixels with."""
    return np.round(np.clip(pixels, -FAR_OUT, FAR_OUT) * 2**SHIFT).astype(np.int32)


def stroke(image: np.ndarray, pixels: np.ndarray, color: tuple, width: int) -> None:
    """Draw an open line through pixels ``(n, 2)``."""
    cv2.polylines(image, [fixed(pixels)], False, color, width, cv2.LINE_AA, SHIFT)


def fill(image: np.ndarray, pixels: np.ndarray, color: tuple, opacity: float) -> None:
    """Lay a see-through polygon over a picture."""
    low = np.clip(np.floor(pixels.min(axis=0)), 0, image.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, image.shape[1::-1]).astype(int)
    if (low >= high).any():
        return
    part = image[low[1] : high[1], low[0] : high[0]]
    layer = part.copy()
    cv2.fillPoly(layer, [fixed(pixels - low)], color, cv2.LINE_AA, SHIFT)
    part[:] = cv2.addWeighted(layer, opacity, part, 1 - opacity, 0)


def draw_line(image: np.ndarray, line: Line, lidar2img: np.ndarray, lidar2ego: np.ndarray) -> None:
    """A map line on the road."""
    color = rgb(LINES_ON_ROAD.get(line.name, OTHER))
    cut = to_camera(on_road(densify(line.points), lidar2ego), lidar2img)
    for a, b in zip(cut[:-1], cut[1:], strict=True):
        part = clip_segment(a, b)
        if part is not None:
            stroke(image, to_pixels(part), color, 2)


def draw_plan(
    image: np.ndarray, path: np.ndarray, lidar2img: np.ndarray, lidar2ego: np.ndarray
) -> None:
    """The planned path as a band on the road, a bar across it at every step."""
    if np.linalg.norm(path[-1] - path[0]) < 0.5:
        return
    outline = ribbon(densify(path), 1.0)
    half = len(outline) // 2
    quads = [[i, i + 1, -i - 2, -i - 1] for i in range(half - 1)]
    ground = to_camera(on_road(outline, lidar2ego), lidar2img)
    for quad in quads:
        polygon = clip_polygon(ground[quad])
        if len(polygon):
            fill(image, to_pixels(polygon), rgb(PLAN), 0.5)
    for side in (ground[:half], ground[half:]):
        for a, b in zip(side[:-1], side[1:], strict=True):
            part = clip_segment(a, b)
            if part is not None:
                stroke(image, to_pixels(part), rgb(PLAN), 2)


def draw_boxes(image: np.ndarray, objects: Objects, lidar2img: np.ndarray) -> list[tuple]:
    """Wire frames, the farthest first, their fronts filled.

    Returns:
        Labels: text, x and y of the middle of its lower edge, colour.
    """
    points = corners(torch.from_numpy(objects.boxes)).numpy()
    cut = to_camera(points, lidar2img)
    labels = []
    for i in np.argsort(-cut[..., 2].mean(axis=1), kind='stable'):
        edges = [clip_segment(cut[i, a], cut[i, b]) for a, b in EDGES]
        segments = [to_pixels(edge) for edge in edges if edge is not None]
        if not segments or not visible(np.concatenate(segments), image):
            continue
        color = rgb(OBJECTS.get(objects.names[i], OTHER))
        front = clip_polygon(cut[i, list(FRONT)])
        if len(front):
            fill(image, to_pixels(front), color, 0.45)
        for width, paint in ((3, (255, 255, 255)), (1, color)):
            for segment in segments:
                stroke(image, segment, paint, width)
        pixels = np.concatenate(segments)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        if high[1] - low[1] >= LEAST_HEIGHT:
            text = objects.names[i].replace('_', ' ')
            if objects.scores is not None:
                text += f' {objects.scores[i]:.2f}'
            labels.append((text, (low[0] + high[0]) / 2, low[1], color))
    return labels


def visible(pixels: np.ndarray, image: np.ndarray) -> bool:
    """Whether the rectangle round pixels ``(n, 2)`` overlaps the picture."""
    height, width = image.shape[:2]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return bool(high[0] > 0 and high[1] > 0 and low[0] < width and low[1] < height)


def write(image: np.ndarray, caption: str, labels: list[tuple]) -> np.ndarray:
    """Labels where there is room for them, the nearest objects' first, and the camera's name."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    font, big = ImageFont.load_default(size=11), ImageFont.load_default(size=15)
    taken: list[tuple] = []
    frame = pen.textbbox((8, 6), caption, font=big)
    frame = frame[0] - 5, frame[1] - 4, frame[2] + 5, frame[3] + 4
    pen.rectangle(frame, fill=(255, 255, 255))
    pen.text((8, 6), caption, font=big, fill=(30, 30, 30))
    taken.append(frame)
    for text, x, y, color in reversed(labels):
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        wide, high = right - left + 6, bottom - top + 5
        x = min(max(x - wide / 2, 0), picture.width - wide)
        y = min(max(y - high - 1, 0), picture.height - high)
        frame = x, y, x + wide, y + high
        if any(overlap(frame, other) for other in taken):
            continue
        taken.append(frame)
        pen.rectangle(frame, fill=color)
        pen.text((x + 3 - left, y + 2 - top), text, font=font, fill=(255, 255, 255))
    return np.asarray(picture)


def overlap(a: tuple, b: tuple) -> bool:
    """Whether two rectangles (left, top, right, bottom) share a point."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
