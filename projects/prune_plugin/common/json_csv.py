"""Writing results as JSON and CSV."""

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from .fileio import atomic_write


def to_json_data(data: Any) -> Any:
    """Copy ``data`` into what JSON can represent: NaN and infinity become None, tuples become lists."""
    if isinstance(data, dict):
        return {key: to_json_data(entry) for key, entry in data.items()}
    if isinstance(data, list | tuple):
        return [to_json_data(entry) for entry in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def plain(data: Any) -> Any:
    """A deep copy of ``data`` as it comes back from JSON: dicts, lists, texts and numbers alone."""
    return json.loads(json.dumps(data, default=as_plain))


def as_plain(value: Any) -> int | float | str:
    """A value that JSON doesn't know, such as one of NumPy's numbers, as a number or a text."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else str(value)


def write_json(data: Any, path: str | os.PathLike) -> None:
    """Write ``data`` as JSON, atomically; NaN and infinity become null."""
    with atomic_write(path) as file:
        json.dump(to_json_data(data), file, indent=2)
        file.write('\n')


def write_csv(header: Sequence[str], rows: Iterable[Sequence], path: str | os.PathLike) -> None:
    """Write a CSV file with a header line, atomically."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(header)
        writer.writerows(rows)
