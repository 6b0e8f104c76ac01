"""Pixels of pictures: things are where they should be, in their colours."""

import cv2
import numpy as np
import pytest
from drawing_samples import CLASSES, FOCAL, GREYS, HEIGHT, MAP_CLASSES, WIDTH, box, make_view
from drawing_samples import make_sample as sample_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from projects.vad.datasets.infos import CAMERAS
from projects.vad.visualization import Lines, Objects, draw_frame, view_of, write_png
from projects.vad.visualization.bev import REACH, draw_bev
from projects.vad.visualization.cameras import draw_cameras
from projects.vad.visualization.frame import CAMERA, GAP, MARGIN, TITLE
from projects.vad.visualization.palette import CLASS_COLORS, EGO, INK, MAP_COLORS, PLAN

SCALE = 12  # pixels per metre from above, and 1/3 of a camera's pixel


def picture(draw, width: int, height: int, view) -> np.ndarray:
    """What ``draw`` makes of a view on axes that fill the picture, uint8."""
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    draw(axes, view)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def from_above(view) -> np.ndarray:
    """The bird's-eye view, SCALE pixels per metre."""
    across, along = REACH
    return picture(draw_bev, int(2 * across * SCALE), int(2 * along * SCALE), view)


def front(view, name: str = 'CAM_FRONT') -> np.ndarray:
    """One camera, three pixels for one of the image."""
    return picture(lambda axes, v: draw_cameras({name: axes}, v), 3 * WIDTH, 3 * HEIGHT, view)


def has_color(image: np.ndarray, x: float, y: float, color: str, reach: int = 2) -> bool:
    """Whether a pixel close to (x, y) has nearly the colour."""
    x, y = round(x), round(y)
    patch = image[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    wanted = np.array(to_rgb(color)) * 255
    return bool((np.abs(patch - wanted).max(axis=-1) < 12).any())


def at(x: float, y: float) -> tuple[float, float]:
    """The pixel of a place in metres, seen from above."""
    return (x + REACH[0]) * SCALE, (REACH[1] - y) * SCALE


def objects(*boxes, labels=None, path=None, scores=None, best=None) -> Objects:
    """Boxes that all take one path, or stand still."""
    boxes = np.array(boxes)
    steps = np.zeros((1, 7, 2)) if path is None else np.asarray(path, float)
    return Objects(
        boxes,
        np.zeros(len(boxes), int) if labels is None else np.array(labels),
        boxes[:, None, None, :2] + steps,
        scores,
        best,
    )


def test_boxes_from_above_are_where_they_are():
    """Length 4 m along the heading (here +x, right), width 2 m, in the class's colour."""
    view = make_view(found=objects(box(5, 10, heading=0), scores=np.ones(1)))
    image, color = from_above(view), CLASS_COLORS['car']
    for x, y in ((3, 10), (7, 10), (5, 9), (5, 11)):
        assert has_color(image, *at(x, y), color), (x, y)
    for x, y in ((5, 8), (5, 12), (2, 10), (8, 10), (-5, 10), (5, -10)):
        assert not has_color(image, *at(x, y), color), (x, y)


def test_the_nose_points_to_the_front():
    for heading, ahead in ((0, (1, 0)), (90, (0, 1)), (180, (-1, 0)), (-90, (0, -1))):
        view = make_view(found=objects(box(0, 10, heading), scores=np.ones(1)))
        image, (dx, dy) = from_above(view), ahead
        assert has_color(image, *at(dx, 10 + dy), CLASS_COLORS['car'], 1)
        assert not has_color(image, *at(-dx, 10 - dy), CLASS_COLORS['car'], 1)


def test_the_truth_is_dashed_beside_predictions_and_coloured_alone():
    truth = objects(box(5, 10, 0))
    beside = from_above(make_view(truth=truth, found=objects(box(-5, 10, 0), scores=np.ones(1))))
    x, y = np.round(at(5, 11)).astype(int)
    top = beside[y - 2 : y + 3, x - 20 : x + 20].min(axis=(0, 2))
    assert (top < 60).any() and (top > 200).any()
    assert has_color(from_above(make_view(truth=truth)), *at(5, 11), CLASS_COLORS['car'])


def test_map_lines_and_paths_from_above():
    line = np.array([[(-10.0, -20), (-10, 20)], [(10, -20), (10, 20)]])
    view = make_view(
        found_lines=Lines(line, np.array([0, 2])),
        planned_path=np.array([(0.0, 0), (-5, 10)]),
        true_path=np.array([(0.0, 0), (5, 10)]),
    )
    image = from_above(view)
    assert has_color(image, *at(-10, 0), MAP_COLORS['divider'])
    assert has_color(image, *at(10, 0), MAP_COLORS['boundary'])
    assert has_color(image, *at(-5, 10), PLAN)
    assert has_color(image, *at(5, 10), INK)
    assert has_color(image, *at(0, -1), EGO) and not has_color(image, *at(0, 4), EGO)


def test_the_best_mode_is_strong_and_others_faint():
    paths = np.zeros((2, 7, 2))
    paths[0, :, 0], paths[1, :, 0] = np.arange(7), -np.arange(7)
    found = objects(box(0, 10), path=paths, scores=np.ones(1), best=np.array([1]))
    image = from_above(make_view(found=found))
    assert has_color(image, *at(-4, 10), CLASS_COLORS['car'])
    assert not has_color(image, *at(4, 10), CLASS_COLORS['car'])
    x, y = np.round(at(4, 10)).astype(int)
    assert image[y - 1 : y + 2, x].min() < 230


def test_boxes_in_a_camera_are_where_a_pinhole_puts_them():
    image = front(make_view(truth=objects(box(1, 12, 90, (2.0, 4.0, 1.6)), labels=[2])))
    color = CLASS_COLORS['pedestrian']
    for x, depth, z in ((0, 10, -1.0), (2, 10, -1.0), (1, 10, -1.8), (1, 14, -1.8)):
        u, v = WIDTH / 2 + FOCAL * x / depth, HEIGHT / 2 - FOCAL * z / depth
        assert has_color(image, 3 * (u + 0.5), 3 * (v + 0.5), color, 3), (x, depth, z)
    assert not has_color(image, 3 * 40, 3 * 100, color, 30)


def test_a_box_that_the_camera_is_in_and_one_behind():
    """What is behind stays out; a box round the camera draws without a fuss."""
    plain = front(make_view())
    np.testing.assert_array_equal(front(make_view(truth=objects(box(0, -10)))), plain)
    around = front(make_view(truth=objects(box(0, 0, 90, (4.0, 8.0, 4.0)))))
    assert has_color(around, 3 * WIDTH / 2, 3 * HEIGHT / 2, CLASS_COLORS['car'], 300)
    behind = front(make_view(truth=objects(box(0, -10))), 'CAM_BACK')
    assert has_color(behind, 3 * WIDTH / 2, 3 * (HEIGHT / 2 + 30), CLASS_COLORS['car'], 60)


def test_the_plan_lies_on_the_ground():
    path = np.array([(0.0, 0), (0, 4), (0, 20)])
    image = front(make_view(planned_path=path))
    v = HEIGHT / 2 + FOCAL * 1.8 / 10
    assert has_color(image, 3 * (WIDTH / 2 + 0.5), 3 * (v + 0.5), PLAN)
    assert not has_color(image, 3 * WIDTH / 2, 3 * (HEIGHT / 2 - 10), PLAN, 10)


def test_labels_do_not_hide_each_other():
    """Two boxes at nearly one place: the nearer one's label stays."""
    figure = Figure(figsize=(9.6, 5.4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    truth = objects(box(0, 8), box(0.1, 8.2), box(-4, 8), labels=[0, 1, 2])
    draw_cameras({'CAM_FRONT': axes}, make_view(truth=truth))
    texts = [text.get_text() for text in axes.texts]
    assert sorted(texts) == ['car', 'front', 'pedestrian']


def test_a_frame_has_the_cameras_in_their_places(tmp_path):
    view = view_of(sample_of(tmp_path), CLASSES, MAP_CLASSES, title='a title')
    image = draw_frame(view)
    assert image.dtype == np.uint8 and image.shape[0] % 2 == image.shape[1] % 2 == 0
    tall = round(CAMERA * HEIGHT / WIDTH)
    order = ('FRONT_LEFT', 'FRONT', 'FRONT_RIGHT', 'BACK_LEFT', 'BACK', 'BACK_RIGHT')
    for k, name in enumerate(order):
        row, column = divmod(k, 3)
        x, y = MARGIN + column * (CAMERA + GAP) + 9, MARGIN + TITLE + row * (tall + GAP) + 60
        grey = GREYS[CAMERAS.index(f'CAM_{name}')]
        assert np.abs(image[y, x].astype(int) - grey).max() <= 1, name
    write_png(image, tmp_path / 'frame.png')
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'frame.png'))[..., ::-1], image)


@pytest.mark.parametrize('empty', [{}, dict(found=objects(box(0, 5)).__class__(
    np.zeros((0, 9)), np.zeros(0, int), np.zeros((0, 6, 7, 2)), np.zeros(0)))])  # fmt: skip
def test_a_frame_with_nothing_in_it(empty):
    assert draw_frame(make_view(**empty)).std() > 0
