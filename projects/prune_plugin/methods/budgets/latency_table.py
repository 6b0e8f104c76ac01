"""Latencies that were measured on another machine, as a table in a CSV file."""

import csv
import os
from pathlib import Path

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.validation import is_number

KEY = 'prune_cfg.budget.table'
#: What a table must have; other columns are ignored.
COLUMNS = ('shape', 'units', 'milliseconds')


class LatencyTable:
    """Milliseconds of layers by their shape and their number of units; of the model by its shape.

    Args:
        path: A CSV file with the columns ``shape``, ``units`` and ``milliseconds``, as
            ``tools/latency_table.py`` and the script that it writes make it.

    Raises:
        UserError: the file can't be read as such a table.
    """

    def __init__(self, path: str | os.PathLike):
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise UserError(f'{KEY} is {path!r}; it must be the path of a CSV file')
        self.path = Path(path)
        self.times: dict[str, dict[int, float]] = {}
        try:
            with open(path, encoding='utf-8', newline='') as file:
                self._read(csv.DictReader(file))
        except OSError as error:
            raise UserError(f'{KEY} {path} cannot be read: {error.strerror}') from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f'{KEY} {path} is no CSV file: {error}') from error

    def _read(self, rows: csv.DictReader) -> None:
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise UserError(
                f'{KEY} {self.path} has no column {", ".join(missing)}; it needs {", ".join(COLUMNS)}'
            )
        for row in rows:
            shape, units, milliseconds = (row[name] or '' for name in COLUMNS)
            time = number(milliseconds)
            if not units.isdecimal() or time is None or not time > 0:
                raise UserError(
                    f'{KEY} {self.path}, line {rows.line_num}: units is {units!r} and milliseconds '
                    f'{milliseconds!r}; they must be a whole number and a number > 0'
                )
            of_shape = self.times.setdefault(shape, {})
            if of_shape.setdefault(int(units), time) != time:
                raise UserError(
                    f'{KEY} {self.path}, line {rows.line_num}: {shape!r} with {units} units has another '
                    'time above; leave one'
                )

    def of_layer(self, shape: str, size: int, least: int, name: str) -> tuple[Tensor, Tensor]:
        """Times of a layer by its number of units.

        Args:
            shape: Of the layer, as in the file.
            size: All its units.
            least: Fewest units that it keeps.
            name: Of the layer, for messages.

        Returns:
            Counts and milliseconds, float64, both ascending, up to all units.

        Raises:
            UserError: the file has no row of the dense layer, or none with fewer units.
        """
        times = {units: ms for units, ms in self.times.get(shape, {}).items() if units <= size}
        if size not in times or (len(times) < 2 and least < size):
            lacking = 'no row' if not times else f'rows of {", ".join(map(str, times))} units alone'
            raise UserError(
                f'{KEY} {self.path} has {lacking} for {name}, shape {shape!r}, where it needs {size} units '
                'and at least one smaller number; measure what tools/latency_table.py lists'
            )
        counts = torch.tensor(sorted(times), dtype=torch.float64)
        return counts, torch.tensor([times[int(n)] for n in counts], dtype=torch.float64)

    def of_model(self, shape: str) -> float:
        """Milliseconds of the dense model.

        Raises:
            UserError: the file has no row of it.
        """
        if shape not in self.times:
            raise UserError(
                f'{KEY} {self.path} has no row for the whole model, shape {shape!r}; measure what '
                'tools/latency_table.py lists'
            )
        return max(self.times[shape].values())


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if is_number(value) else None
