"""Videos are read back: as many pictures, in order, whole or not at all."""

import cv2
import numpy as np
import pytest
from drawing_samples import make_view
from PIL import Image

from projects.vad.visualization import whole_video, write_pictures
from projects.vad.visualization.video import DRAWN, GIF_WIDTH

LEVELS = (20, 120, 220, 60)


def pictures(width=64, height=48):
    """Plain pictures, each of another grey."""
    return [np.full((height, width, 3), level, np.uint8) for level in LEVELS]


def read(path) -> list[np.ndarray]:
    """A video's pictures."""
    if path.suffix == '.gif':
        film = Image.open(path)
        frames = []
        for k in range(film.n_frames):
            film.seek(k)
            frames.append(np.asarray(film.convert('RGB')))
        assert film.info['duration'] == 500 and film.info['loop'] == 0
        return frames
    film, frames = cv2.VideoCapture(str(path)), []
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(2)
    while (got := film.read())[0]:
        frames.append(got[1])
    return frames


@pytest.mark.parametrize('kind', ['mp4', 'gif'])
def test_pictures_come_back_in_order(tmp_path, kind):
    path = tmp_path / f'video.{kind}'
    with whole_video(path, kind) as film:
        for picture in pictures():
            film.add(picture)
    frames = read(path)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert [frame.mean() for frame in frames] == pytest.approx(LEVELS, abs=6)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize('kind', ['mp4', 'gif'])
def test_a_failure_leaves_what_was_there(tmp_path, kind):
    path = tmp_path / f'video.{kind}'
    path.write_text('before')
    with pytest.raises(RuntimeError), whole_video(path, kind) as film:
        film.add(pictures()[0])
        raise RuntimeError
    assert path.read_text() == 'before' and len(list(tmp_path.iterdir())) == 1


def test_a_gif_is_narrow_and_keeps_the_drawing_s_colours(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (200, 2 * GIF_WIDTH, 3), np.uint8)
    for k, color in enumerate(DRAWN):
        picture[:40, 80 * k : 80 * k + 80] = list(bytes.fromhex(color[1:]))
    with whole_video(tmp_path / 'video.gif', 'gif') as film:
        film.add(picture)
    (frame,) = read(tmp_path / 'video.gif')
    assert frame.shape == (100, GIF_WIDTH, 3)
    for k, color in enumerate(DRAWN):
        assert frame[10, 40 * k + 20].tolist() == pytest.approx(
            list(bytes.fromhex(color[1:])), abs=4
        )


def test_views_become_numbered_files(tmp_path):
    views = [None, make_view(title='b'), make_view(title='c')]
    files = write_pictures(iter(views), tmp_path, 'mp4')
    names = ['frame_0001.png', 'frame_0002.png', 'video.mp4']
    assert [file.name for file in files] == names == sorted(p.name for p in tmp_path.iterdir())
    assert len(read(files[-1])) == 2


def test_drawing_that_fails_leaves_nothing(tmp_path):
    def views():
        yield make_view()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_pictures(views(), tmp_path, 'gif')
    assert not list(tmp_path.iterdir())
