"""What a compensation is."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...calibration.data import CalibrationData
from ...structure.prune_state import PruneState


class Compensation:
    """Base of the compensations: changes weights so that the model misses removed units less."""

    def apply(
        self,
        model: nn.Module,
        state: PruneState,
        data: CalibrationData,
        loss: Callable[[nn.Module, Any], Tensor],
    ) -> list[str]:
        """Prepare a model, in place, for being cut as ``state`` says.

        Args:
            model: The model that ``state`` refers to; units aren't removed here.
            state: Which units stay.
            data: Calibration batches.
            loss: Runs the model on a batch.

        Returns:
            Names of the weights that have changed.
        """
        raise NotImplementedError
