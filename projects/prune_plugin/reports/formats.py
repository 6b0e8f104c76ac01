"""Result files as JSON and CSV."""

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

from ..files import whole_file


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
