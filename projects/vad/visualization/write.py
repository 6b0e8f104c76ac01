"""Views as files: one PNG each, and a video of all."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from .frame import draw_frame, write_png
from .video import whole_video
from .view import View

PNG = 'frame_{:04d}.png'


def write_pictures(
    views: Iterable[View | Any | None],
    folder: Path,
    video: str | None = None,
    draw: Callable[[Any], np.ndarray] = draw_frame,
) -> list[Path]:
    """Write ``frame_0000.png`` and so on, numbered by the place in ``views``, and ``video.*``.

    The files appear when all are done; if drawing fails, none does.

    Args:
        views: What to draw; None is counted and left out.
        folder: Where to; it exists.
        video: Kind of video, see ``video.KINDS``; None for no video.
        draw: Makes a picture of an item of ``views``.

    Returns:
        The files written.
    """
    names = []
    with tempfile.TemporaryDirectory(dir=folder, prefix='.drawing.') as stage:
        name = f'video.{video}'
        with nullcontext() if video is None else whole_video(Path(stage, name), video) as film:
            for number, view in enumerate(views):
                if view is None:
                    continue
                picture = draw(view)
                names.append(PNG.format(number))
                write_png(picture, Path(stage, names[-1]))
                if film is not None:
                    film.add(picture)
        if film is not None:
            names.append(name)
        for name in names:
            os.replace(Path(stage, name), folder / name)
    return [folder / name for name in names]
