"""Pictures in a row as an MP4 or a GIF."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from projects.prune_plugin.common.errors import UserError

from .palette import CLASS_COLORS, EGO, GREY, INK, MAP_COLORS, PALE, PAPER, PLAN

#: The kinds of video, which are the endings of their files too.
KINDS = ('mp4', 'gif')
#: nuScenes' key frames a second.
RATE = 2.0
#: A GIF is made narrower than this, in pixels.
GIF_WIDTH = 1280
#: Colours that a GIF keeps, whatever else is in the picture.
DRAWN = (*CLASS_COLORS.values(), *MAP_COLORS.values(), INK, GREY, PALE, PAPER, EGO, PLAN)


class Video(Protocol):
    """Something that takes pictures and ends as a file."""

    def add(self, picture: np.ndarray) -> None:
        """Append a picture ``(H, W, 3)``, uint8, RGB; all have one size."""

    def close(self) -> None:
        """Write what isn't written yet."""


class Mp4:
    """MPEG-4 through OpenCV.

    Args:
        path: The file.
        rate: Pictures a second.
    """

    def __init__(self, path: str, rate: float):
        self.path, self.rate = path, rate
        self.writer: cv2.VideoWriter | None = None

    def add(self, picture: np.ndarray) -> None:
        """See :class:`Video`."""
        if self.writer is None:
            code, size = cv2.VideoWriter_fourcc(*'mp4v'), picture.shape[1::-1]
            self.writer = cv2.VideoWriter(self.path, code, self.rate, size)
            if not self.writer.isOpened():
                raise UserError(
                    '--video mp4: this OpenCV can not write MP4; gif and none are valid'
                )
        self.writer.write(np.ascontiguousarray(picture[..., ::-1]))

    def close(self) -> None:
        """See :class:`Video`."""
        if self.writer is not None:
            self.writer.release()


class Gif:
    """GIF that repeats for ever, made narrower; see :class:`Mp4`."""

    def __init__(self, path: str, rate: float):
        self.path, self.rate = path, rate
        self.pictures: list[Image.Image] = []

    def add(self, picture: np.ndarray) -> None:
        """See :class:`Video`."""
        image = Image.fromarray(picture)
        if image.width > GIF_WIDTH:
            height = round(image.height * GIF_WIDTH / image.width)
            image = image.resize((GIF_WIDTH, height), Image.Resampling.LANCZOS)
        self.pictures.append(with_few_colors(image))

    def close(self) -> None:
        """See :class:`Video`."""
        if self.pictures:
            first, *others = self.pictures
            wait = round(1000 / self.rate)
            first.save(self.path, save_all=True, append_images=others, duration=wait, loop=0)


def with_few_colors(image: Image.Image) -> Image.Image:
    """The picture with 256 colours, among them those of the drawing, which cover few pixels."""
    drawn = [channel for color in DRAWN for channel in bytes.fromhex(color[1:])]
    free = 256 - len(DRAWN)
    common = image.quantize(free, Image.Quantize.MEDIANCUT).getpalette()[: 3 * free]
    palette = Image.new('P', (1, 1))
    palette.putpalette(common + drawn)
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


WRITERS = {'mp4': Mp4, 'gif': Gif}


@contextmanager
def whole_video(path: str | os.PathLike, kind: str, rate: float = RATE) -> Iterator[Video]:
    """A video to add pictures to, which takes the place of ``path`` only when all went well.

    Args:
        path: The file.
        kind: One of ``KINDS``.
        rate: Pictures a second.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.') as folder:
        temporary = Path(folder, f'video.{kind}')
        video = WRITERS[kind](str(temporary), rate)
        try:
            yield video
        finally:
            video.close()
        if temporary.exists():
            os.replace(temporary, path)
