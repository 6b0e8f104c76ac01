"""What of a model is kept, from one round of iterative pruning to the next."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ...calibration.loss import LossFunction, mmengine_loss
from .layer_progress import LayerProgress
from .plan import Pruned

#: One parameter of the units of a group: its name, dimension, and indices (units, indices per unit).
Rows = tuple[str, int, Tensor]


def totals_by_kind(counts: Iterable[Sequence[Any]]) -> dict[str, tuple[int, int]]:
    """Sums of two numbers by kind; each entry of ``counts`` is a kind and two numbers."""
    totals: dict[str, tuple[int, int]] = {}
    for kind, first, second in counts:
        before = totals.get(kind, (0, 0))
        totals[kind] = before[0] + first, before[1] + second
    return totals


class Selection:
    """Base of the selections: everything is active at first.

    With soft pruning, what :meth:`choose` schedules for removal stays active until :meth:`remove`.
    """

    def choose(
        self,
        model: nn.Module,
        ratio: float,
        data: Any,
        loss: LossFunction = mmengine_loss,
        progress: LayerProgress | None = None,
    ) -> None:
        """Choose by the weights what is kept; what was removed is never kept again.

        Args:
            model: The trained model; a sparsifier may change its weights.
            ratio: Fraction removed then, of the dense model.
            data: Gives calibration batches.
            loss: Gives the loss of the model on a batch.
            progress: Where finished layers are kept, so that a killed run can go on.
        """
        raise NotImplementedError

    def remove(self) -> None:
        """Remove what is scheduled for removal."""

    def scheduled(self) -> list[list[Rows]]:
        """The units scheduled for removal: for each group all their parameters."""
        return []

    def masks(self, model: nn.Module) -> dict[str, Tensor]:
        """Which weights are active, bool by parameter name; parameters that are whole are left out."""
        raise NotImplementedError

    def counts(self) -> dict[str, list]:
        """Of each group its kind, how many of it are active, and of how many."""
        raise NotImplementedError

    def pruned(self, model: nn.Module) -> Pruned:
        """What is active of a model, units really removed: the model is changed in place."""
        raise NotImplementedError

    def planned(self, model: nn.Module, ratio: float) -> int | None:
        """How many would be kept at a ratio if all were equally important; None if that can't be known.

        Raises:
            UserError: the floors don't allow the ratio.
        """
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        raise NotImplementedError

    def restore(self, data: dict[str, Any]) -> None:
        """Be as :meth:`to_dict` was.

        Raises:
            UserError: it is of another model.
        """
        raise NotImplementedError

    @property
    def by_kind(self) -> dict[str, tuple[int, int]]:
        """By kind: how many are active, and of how many."""
        return totals_by_kind(self.counts().values())

    @property
    def sparsity(self) -> float:
        """The fraction that isn't active."""
        kinds = self.by_kind.values()
        return 1 - sum(left for left, _ in kinds) / sum(size for _, size in kinds)
