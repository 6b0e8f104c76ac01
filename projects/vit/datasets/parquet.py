"""Encoded images and labels from parquet files."""

from pathlib import Path
from typing import Any

import numpy as np

from projects.prune_plugin.common.errors import UserError

IMAGE_COLUMNS = ('image', 'img', 'images')


def read_parquet(files: list[Path], label_columns: tuple[str, ...]) -> tuple[Any, np.ndarray]:
    """Return the encoded images (an Arrow column of bytes) and the labels ``(N,)`` of some shards.

    The image column is ``image`` or ``img`` and holds bytes, or a struct with ``bytes`` as on the
    HF hub.

    Args:
        files: Shards, in order.
        label_columns: Names of the label column, the preferred one first.

    Raises:
        UserError: If a file is damaged or lacks a column, or a row has no image or label.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import parquet
    except ImportError as err:
        raise UserError(f'reading {str(files[0])!r} needs pyarrow; pip install pyarrow') from err

    columns: list[tuple[Any, Any]] = []
    for path in files:
        try:
            present = parquet.read_schema(path).names
            image = _pick(present, IMAGE_COLUMNS, path)
            label = _pick(present, label_columns, path)
            table = parquet.read_table(path, columns=[image, label])
        except (pa.ArrowException, OSError) as err:
            reason = str(err).splitlines()[0]
            raise UserError(f'{str(path)!r} is not a readable parquet file: {reason}') from err
        columns.append((_image_bytes(table[image], path), table[label]))
    images = pa.chunked_array([chunk for column, _ in columns for chunk in column.chunks])
    labels = pa.chunked_array([chunk for _, column in columns for chunk in column.chunks])
    if pc.any(pc.is_null(images)).as_py() or pc.any(pc.is_null(labels)).as_py():
        raise UserError(f'{str(files[0])!r} has rows without image bytes or label')
    if not len(images):
        raise UserError(f'{str(files[0])!r} has no rows')
    if not pa.types.is_integer(labels.type):
        raise UserError(
            f'the labels in {str(files[0])!r} are {labels.type}; integers would be valid'
        )
    return images, labels.to_numpy().astype(np.int64)


def _pick(present: list[str], wanted: tuple[str, ...], path: Path) -> str:
    for name in wanted:
        if name in present:
            return name
    raise UserError(
        f'{str(path)!r} has the columns {", ".join(present)}; '
        f'one named {" or ".join(wanted)} is needed'
    )


def _image_bytes(column: Any, path: Path) -> Any:
    """Return a column of bytes, taken out of the HF hub's struct if need be."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type):
        if column.type.get_field_index('bytes') < 0:
            raise UserError(
                f"the images in {str(path)!r} are {column.type}; a field 'bytes' is needed"
            )
        column = pc.struct_field(column, 'bytes')
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise UserError(
            f'the images in {str(path)!r} are {column.type}; encoded bytes would be valid'
        )
    return column
