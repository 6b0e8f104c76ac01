"""Batches before a block as calibration data of that block."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..calibration.data import CalibrationData
from .stream import Window


class WindowData(CalibrationData):
    """What a method that works on a model is given where it works on a block of it.

    Args:
        windows: The batches before the block.
        batches: The samples of each, as the whole model's calibration data has them.
        seed: Of that data.
        dense: The first batches before the same block of the dense model; None: these are they.
        one_by_one: See :class:`CalibrationData`.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        batches: Sequence[Tensor],
        seed: int,
        dense: 'WindowData | None' = None,
        one_by_one: bool = False,
    ):
        self.windows, self.batches, self.seed = windows, batches, seed
        self.one_by_one = one_by_one
        self._dense = dense

    @property
    def dense_stream(self) -> CalibrationData:
        """See :class:`CalibrationData`."""
        return self if self._dense is None else self._dense

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """See :class:`CalibrationData`."""
        for number, window in enumerate(self.windows):
            yield number, len(self.batches[number]), window

    def first_sample(self) -> Any:
        """The first batch: methods ask only in which order it passes the layers."""
        return self.windows[0]
