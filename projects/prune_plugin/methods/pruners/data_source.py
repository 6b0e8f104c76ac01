"""Where a pruner's calibration batches come from, and which of its methods need them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ...calibration.data import CalibrationData
from ...calibration.settings import CalibrationSettings

#: Gives the calibration batches when, and only when, a method needs them.
DataFactory = Callable[[CalibrationSettings], CalibrationData]
#: The same, or the batches themselves.
DataSource = DataFactory | Iterable[Any]


@dataclass(frozen=True)
class DataUser:
    """A method that needs calibration data.

    Attributes:
        what: Its key and name.
        instead: What to do without data.
    """

    what: str
    instead: str
