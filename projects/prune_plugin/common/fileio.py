"""Atomic file writes, and output directories that are removed again if a run fails."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mmengine import dist

from .errors import UserError

#: Errors of a failed write: disk full, over quota, file too large, read-only, not permitted.
WRITE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
#: Suffix of the hidden temporary files; a killed run may leave some behind.
PARTIAL_SUFFIX = '.part'


def find_write_error(error: BaseException | None) -> OSError | None:
    """The failed write in an error's chain of causes, or None (``torch.save`` wraps it)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in WRITE_ERRNOS:
            return error
        error = error.__cause__ or error.__context__
    return None


def write_error_message(error: OSError) -> str:
    """One sentence for a failed write: the file, the reason, and what to do."""
    return (
        f'{error.filename or "a file"} cannot be written ({error.strerror}), and no partial file is left '
        'there; free some space, or name a writable directory, and run again'
    )


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = 'w') -> Iterator[IO[Any]]:
    """Open a temporary file for writing; on success it replaces ``path``, on an error it is deleted.

    Args:
        path: The file. Its previous content is kept if writing fails.
        mode: ``'w'`` for text (UTF-8), ``'wb'`` for bytes.

    Raises:
        OSError: the file can't be written, because the disk is full, for instance; with ``path`` as its
            ``filename``.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f'.{path.name}.', suffix=PARTIAL_SUFFIX
    )
    encoding, newline = (None, None) if 'b' in mode else ('utf-8', '')
    try:
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if (write_error := find_write_error(error)) is not None:
            raise OSError(write_error.errno, write_error.strerror, str(path)) from error
        raise


def replace_symlink(path: Path, target: str) -> None:
    """Make ``path`` a symbolic link to ``target`` (relative to its directory), atomically."""
    temporary = path.with_name(f'.{path.name}{PARTIAL_SUFFIX}')
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def remove_partial_files(folder: Path) -> None:
    """Delete partial files that killed runs left in ``folder`` and its direct subdirectories."""
    for pattern in (f'.*{PARTIAL_SUFFIX}', f'*/.*{PARTIAL_SUFFIX}'):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


@contextmanager
def output_directory(path: str | os.PathLike, key: str = '--output-dir') -> Iterator[Path]:
    """Create a directory and check that it is writable; remove it again if the body raises, if empty.

    Partial files that a killed run left there are deleted (on rank 0).

    Args:
        path: The directory; missing parents are created, too.
        key: Name of the option, for the message.

    Raises:
        UserError: the directory can't be created or written.
    """
    path = Path(path)
    created = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        if dist.is_main_process():
            remove_partial_files(path)
    except OSError as error:
        raise UserError(
            f'{key} {path} cannot be written ({error.strerror}); name a writable directory'
        ) from error
    try:
        yield path
    except BaseException:
        for folder in created:
            with suppress(OSError):  # not empty, or already removed by another rank
                folder.rmdir()
        raise


def check_new_folder(folder: str | os.PathLike) -> Path:
    """Return ``folder`` if it doesn't exist or is empty.

    Raises:
        UserError: it isn't empty, or is a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'--save-hf {folder} already exists; name a new or an empty folder')
    return folder
