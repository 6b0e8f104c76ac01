"""Pictures in a row as a video: MP4 or GIF."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from projects.prune_plugin.errors import UserError
from projects.prune_plugin.files import whole_file

#: Frames a second; key frames are 0.5 s apart, so this is twice as fast as reality.
FPS = 4
GIF_WIDTH = 1280


def write_video(pictures: Sequence[Path], path: str | os.PathLike, fps: int = FPS) -> None:
    """Write picture files as ``.mp4`` or ``.gif``, whichever the path ends with.

    Args:
        pictures: Files of one size, at least one.
        path: The video; it appears whole or not at all.
        fps: Pictures a second.

    Raises:
        UserError: There are no pictures, their sizes differ, or the ending is another one.
    """
    path = Path(path)
    writers = {'.mp4': write_mp4, '.gif': write_gif}
    if path.suffix not in writers:
        raise UserError(f'video {path} should end with .mp4 or .gif')
    if not pictures:
        raise UserError(f'video {path} needs at least one picture')
    writers[path.suffix](map(load, pictures), path, fps)


def load(path: Path) -> np.ndarray:
    """A picture file as ``(H, W, 3)`` uint8 RGB."""
    return np.asarray(Image.open(path).convert('RGB'))


def write_mp4(pictures: Iterable[np.ndarray], path: Path, fps: int) -> None:
    """MPEG-4 through OpenCV; an odd row or column is left out."""
    writer, size = None, None
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.', suffix='.mp4')
    os.close(handle)
    try:
        for picture in pictures:
            height, width = (n // 2 * 2 for n in picture.shape[:2])
            if writer is None:
                size = width, height
                writer = cv2.VideoWriter(temporary, cv2.VideoWriter_fourcc(*'mp4v'), fps, size)
                if not writer.isOpened():
                    raise UserError(f'video {path}: OpenCV cannot write MP4 here; take a GIF')
            check_size(path, size, (width, height))
            writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
        writer.release()
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_gif(pictures: Iterable[np.ndarray], path: Path, fps: int) -> None:
    """A GIF that repeats for ever, at most :data:`GIF_WIDTH` pixels wide."""
    images: list[Image.Image] = []
    for picture in pictures:
        image = Image.fromarray(picture)
        if image.width > GIF_WIDTH:
            size = GIF_WIDTH, round(image.height * GIF_WIDTH / image.width)
            image = image.resize(size, Image.Resampling.LANCZOS)
        images.append(image.quantize(256, method=Image.Quantize.MEDIANCUT))
        check_size(path, images[0].size, image.size)
    with whole_file(path, 'wb') as file:
        images[0].save(
            file, format='GIF', save_all=True, append_images=images[1:], duration=1000 // fps, loop=0,
            optimize=False, disposal=1,
        )  # fmt: skip


def check_size(path: Path, first: tuple[int, int], other: tuple[int, int]) -> None:
    """All pictures of a video have one size."""
    if first != other:
        raise UserError(f'video {path}: a picture is {other} pixels large, the first one {first}')
