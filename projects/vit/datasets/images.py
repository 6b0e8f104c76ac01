"""Decoding many small images into one array."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from PIL import Image
from rich.console import Console
from rich.progress import track

from projects.prune_plugin.common.errors import UserError

SIZE = 32
SHOW_FROM = 5000


def decode_images(
    encoded: Sequence[bytes | Path], where: str, names: Sequence[object]
) -> np.ndarray:
    """Decode PNG or JPEG images of 32x32 pixels into ``(N, 3, 32, 32)`` uint8.

    Args:
        encoded: The files' bytes or their paths.
        where: What the images belong to, for error messages.
        names: What to call each image in an error message: a row number or a path.

    Raises:
        UserError: If an image can't be decoded or has another size; it names the image.
    """
    images = np.empty((len(encoded), SIZE, SIZE, 3), dtype=np.uint8)
    steps = track(
        range(len(encoded)),
        description='Decoding images',
        console=Console(stderr=True),
        transient=True,
        disable=len(encoded) < SHOW_FROM or not is_main_process(),
    )
    for i in steps:
        item = encoded[i]
        try:
            with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                pixels = np.asarray(image.convert('RGB'))
        except (OSError, ValueError, SyntaxError, TypeError) as err:
            raise UserError(f'image {names[i]} of {where} can not be decoded: {err}') from err
        if pixels.shape[:2] != (SIZE, SIZE):
            height, width = pixels.shape[:2]
            raise UserError(
                f'image {names[i]} of {where} has {width}x{height} pixels; '
                f'{SIZE}x{SIZE} would be valid'
            )
        images[i] = pixels
    return images.transpose(0, 3, 1, 2)
