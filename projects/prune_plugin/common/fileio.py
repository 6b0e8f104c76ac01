"""Writing files: each appears whole, or not at all; and directories that leave no trace on failure."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mmengine import dist

from .errors import UserError

#: What a disk says that takes no more: full, over quota, too large a file, read-only, not permitted.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
#: How the hidden name ends under which a file is written, and which a killed run may leave.
PART = '.part'


def refusal(error: BaseException | None) -> OSError | None:
    """The disk's refusal behind an error, if there is one: ``torch.save`` covers it with its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REFUSALS:
            return error
        error = error.__cause__ or error.__context__
    return None


def refusal_message(error: OSError) -> str:
    """One sentence for a disk that takes no more."""
    return (
        f'{error.filename or "a file"} cannot be written ({error.strerror}), and nothing half-written is '
        'left there; make room for it, or name a directory that can be written, and run again'
    )


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = 'w') -> Iterator[IO[Any]]:
    """A file to write to, which takes the place of ``path`` only when all went well.

    Args:
        path: The file.
        mode: ``'w'`` for text, ``'wb'`` for bytes.

    Raises:
        OSError: the disk is full or refuses otherwise; what was there is still there.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.', suffix=PART)
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
        if (refused := refusal(error)) is not None:
            raise OSError(refused.errno, refused.strerror, str(path)) from error
        raise


def replace_symlink(path: Path, target: str) -> None:
    """Make ``path`` a link to ``target``, a path relative to its folder, in one step."""
    temporary = path.with_name(f'.{path.name}{PART}')
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def remove_partial_files(folder: Path) -> None:
    """Remove what killed runs have left half-written in a folder and those in it."""
    for pattern in (f'.*{PART}', f'*/.*{PART}'):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


@contextmanager
def output_directory(path: str | os.PathLike, key: str = '--output-dir') -> Iterator[Path]:
    """Make a directory and check that it can be written; if what follows fails, leave no trace.

    What a killed run has left half-written there is removed (on rank 0).

    Raises:
        UserError: it can't be made or written.
    """
    path = Path(path)
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        if dist.is_main_process():
            remove_partial_files(path)
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
