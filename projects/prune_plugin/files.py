"""Writing files: each appears whole, or not at all; and directories that leave no trace on failure."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import UserError


@contextmanager
def whole_file(path: str | os.PathLike, mode: str = 'w') -> Iterator[IO[Any]]:
    """A file to write to, which takes the place of ``path`` only when all went well.

    Args:
        path: The file.
        mode: ``'w'`` for text, ``'wb'`` for bytes.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    text = {} if 'b' in mode else dict(encoding='utf-8', newline='')
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def output_directory(path: str | os.PathLike, key: str = '--output-dir') -> Iterator[Path]:
    """Make a directory and check that it can be written; if what follows fails, leave no trace.

    Raises:
        UserError: it can't be made or written.
    """
    path = Path(path)
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f'{key} {path} cannot be written ({error.strerror}); name a directory that can'
        ) from error
    try:
        yield path
    except BaseException:
        for folder in made:
            with suppress(OSError):  # not empty, or another rank was faster
                folder.rmdir()
        raise
