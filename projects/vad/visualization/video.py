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

from projects.prune_plugin.errors import UserError

#: The kinds of video, which are the endings of their files too.
KINDS = ('mp4', 'gif')
#: nuScenes' key frames a second.
RATE = 2.0
#: A GIF is made narrower than this, in pixels.
GIF_WIDTH = 1280


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
        self.pictures.append(image.quantize(256, Image.Quantize.MEDIANCUT))

    def close(self) -> None:
        """See :class:`Video`."""
        if self.pictures:
            first, *others = self.pictures
            wait = round(1000 / self.rate)
            first.save(self.path, save_all=True, append_images=others, duration=wait, loop=0)


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
