"""One run at a time in a directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine import dist
from mmengine.logging import print_log

from .distributed import on_rank_0
from .errors import UserError

#: Directories that this process holds.
_HELD: set[str] = set()


@contextmanager
def locked(path: str | os.PathLike, key: str = '--output-dir') -> Iterator[None]:
    """Hold an existing directory while the body runs, so that no other run writes into it.

    Rank 0 holds it. The lock is the operating system's: it ends with the process, however that ends.
    Where the file system has no locks, a line in the log says so.

    Args:
        path: The directory.
        key: Name of the option, for the message.

    Raises:
        UserError: another process holds it; on all ranks.
    """
    folder = str(Path(path).resolve())
    if folder in _HELD:
        yield
        return
    handle = on_rank_0(lambda: acquired(folder, f'{key} {path}'))
    _HELD.add(folder)
    try:
        yield
    finally:
        _HELD.discard(folder)
        if dist.is_main_process() and handle is not None:
            os.close(handle)


def acquired(folder: str, told: str) -> int | None:
    """A handle that holds the directory; None where there are no locks.

    Raises:
        UserError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(
            f'{told} is in use by another run; wait for it, or name another directory'
        ) from error
    except OSError as error:
        os.close(handle)
        print_log(
            f'{told} cannot be locked ({error.strerror}): start no other run there', 'current'
        )
        return None
    return handle
