"""Base class of the reconstructions."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from ...calibration.data import CalibrationData


class Progress(Protocol):
    """Where finished parts are kept; a :class:`.LayerProgress` is one."""

    def load(self, number: int) -> dict[str, dict[str, Tensor]] | None:
        """``{parameter: dict(weight=..., keep=...)}`` of a part; None if it isn't finished."""

    def save(self, number: int, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Keep the parameters of a finished part, with their masks."""


class Reconstruction:
    """Base of the reconstructions: trains a pruned model on the dense one's activations, without labels."""

    #: Forward passes of one sample through the model that each calibration sample takes; a backward pass
    #: counts as two.
    passes = 3.0

    def apply(
        self,
        model: nn.Module,
        dense: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        data: CalibrationData,
        loss: Callable[[nn.Module, Any], Tensor],
        progress: Progress | None = None,
    ) -> list[str]:
        """Train a model's kept weights, in place; what is removed stays zero.

        Args:
            model: The pruned model, in the dense model's shapes.
            dense: The dense model's parameters, by name: all that pruning has changed.
            masks: Which weights are kept, bool by parameter name; others are kept as a whole.
            data: Calibration batches.
            loss: Runs the model on a batch.
            progress: Where finished parts are kept, so that a killed run can go on.

        Returns:
            Names of the parameters that were trained.
        """
        raise NotImplementedError
