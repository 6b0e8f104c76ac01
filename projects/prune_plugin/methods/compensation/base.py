"""Base class of the compensations."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...calibration.data import CalibrationData
from ...structure.prune_state import PruneState


class Compensation:
    """Base of the compensations: updates remaining weights so that removing units changes less."""

    def memory(self, rows: int, inputs: int) -> int:
        """Bytes that changing layers which share an input needs beside their weights; an estimate.

        Args:
            rows: Outputs of these layers, together.
            inputs: Their inputs.
        """
        return 5 * 4 * inputs * inputs + 12 * rows * inputs

    def apply(
        self,
        model: nn.Module,
        state: PruneState,
        data: CalibrationData,
        loss: Callable[[nn.Module, Any], Tensor],
    ) -> list[str]:
        """Update a model's weights, in place, for the removal of units; they are removed afterwards.

        Args:
            model: The model that ``state`` refers to.
            state: The units to keep.
            data: Calibration batches.
            loss: Runs the model on a batch.

        Returns:
            Names of the weights that were refitted.
        """
        raise NotImplementedError
