"""Writing result files: each appears whole, or not at all."""

import csv
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import UserError


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[TextIO]:
    """A text file to write to, which takes the place of ``path`` only when all went well."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'w', encoding='utf-8', newline='') as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(data: Any, path: str | os.PathLike) -> None:
    """Write ``data`` as JSON; numbers that aren't finite become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [finite(entry) for entry in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    with whole_file(path) as file:
        json.dump(finite(data), file, indent=2)
        file.write('\n')


def write_csv(header: Sequence[str], rows: Iterable[Sequence], path: str | os.PathLike) -> None:
    """Write a CSV file with a header line."""
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(header)
        writer.writerows(rows)


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
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
