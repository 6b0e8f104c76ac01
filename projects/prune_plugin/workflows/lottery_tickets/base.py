"""What a ticket is: what is left of the dense model at a pruning state."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...methods.pruners import DataFactory, Pruner

Loss = Callable[[nn.Module, Any], Tensor]


class Ticket:
    """Base of the tickets.

    Attributes:
        soft: Whether what has been chosen to leave stays in the model, under a penalty, until
            :meth:`remove`.
    """

    def __init__(self, pruner: Pruner, model: nn.Module, soft: bool):
        self.pruner, self.soft = pruner, soft

    def choose(self, model: nn.Module, ratio: float, data: DataFactory, loss: Loss) -> None:
        """Choose by the trained weights what stays; never again what has gone.

        Args:
            model: The trained model.
            ratio: Fraction removed then, of the dense model.
            data: Gives calibration batches.
            loss: Gives the loss for gradients.
        """
        raise NotImplementedError

    def remove(self) -> None:
        """Let go what has been chosen to leave."""

    def masks(self, model: nn.Module) -> dict[str, Tensor]:
        """What is in force: bool by parameter name, True where it stays; whole parameters left out."""
        raise NotImplementedError

    def kept(self) -> dict[str, tuple[int, int]]:
        """By kind: how many are in force, and of how many."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        raise NotImplementedError

    def restore(self, data: dict[str, Any]) -> None:
        """Be as :meth:`to_dict` was."""
        raise NotImplementedError

    def cut(self, model: nn.Module) -> nn.Module:
        """Really remove, in place, what isn't in force, where that is possible."""
        return model

    def describe(self) -> dict[str, Any]:
        """What a checkpoint of the cut model has beside its weights: keys of it, ``meta`` among them."""
        raise NotImplementedError

    def by_group(self) -> dict[str, list]:
        """Of each group its kind, how many are in force, and of how many."""
        raise NotImplementedError

    def pulled(self) -> list[list[tuple[str, int, Tensor]]]:
        """What a penalty pulls: for each group (parameter, dimension, indices (units, per unit))."""
        return []

    def planned(self, model: nn.Module, ratio: float) -> int | None:
        """How many would be left at a ratio if all were worth the same; None if that can't be told.

        Raises:
            UserError: the floors don't allow the ratio.
        """
        return None
