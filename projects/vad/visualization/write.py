"""Views as files: one PNG each, and a video of all."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from .frame import draw_frame, write_png
from .video import whole_video
from .view import View

PNG = 'frame_{:04d}.png'


def write_pictures(
    views: Iterable[View | None], folder: Path, video: str | None = None
) -> list[Path]:
    """Write ``frame_0000.png`` and so on, numbered by the place in ``views``, and ``video.*``.

    Each file appears whole, or not at all.

    Args:
        views: What to draw; None is counted and left out.
        folder: Where to; it exists.
        video: Kind of video, see ``video.KINDS``; None for no video.

    Returns:
        The files written.
    """
    path = folder / f'video.{video}'
    written = []
    with nullcontext() if video is None else whole_video(path, video) as film:
        for number, view in enumerate(views):
            if view is None:
                continue
            picture = draw_frame(view)
            written.append(folder / PNG.format(number))
            write_png(picture, written[-1])
            if film is not None:
                film.add(picture)
    return written if video is None else [*written, path]
