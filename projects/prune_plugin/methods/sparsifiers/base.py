"""What a sparsifier is: a weight-level method."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...common.errors import UserError
from ..weight_masks import parse_pattern

#: Weights after pruning, and which of them stay.
Pruned = tuple[Tensor, Tensor]


class Sparsifier:
    """Base of the sparsifiers: decides which single weights become zero.

    A method either looks at weights alone (:meth:`keep_masks`), or at each layer with what it reads
    (``reads_inputs``; :meth:`statistic` and :meth:`prune`).

    Args:
        pattern: None for unstructured, or ``'N:M'``: of M consecutive inputs, N are kept; the
            ratio must then be ``1 - N / M``.
    """

    #: Whether calibration data is needed.
    reads_inputs = False
    #: Whether a layer is to be seen with what it reads behind pruned layers; else all layers are seen in
    #: the model as it is (:meth:`add`), and pruned afterwards.
    sequential = True
    #: Fraction of the calibration batches for which :meth:`statistic` wants to know, too, what the
    #: layer reads in the dense model.
    dense_share = 0.0

    def __init__(self, pattern: str | None = None):
        self.pattern = parse_pattern(pattern)

    @property
    def own_ratio(self) -> float | None:
        """The fraction removed that the method itself prescribes (N:M), or None."""
        return 1 - self.pattern[0] / self.pattern[1] if self.pattern else None

    def check_ratio(self, ratio: float, key: str = 'prune_cfg.budget.ratio') -> None:
        """Raise :class:`UserError` for a ratio, found under ``key``, that the pattern doesn't remove."""
        if self.own_ratio is not None and abs(ratio - self.own_ratio) > 1e-9:
            n, m = self.pattern
            raise UserError(f'{key} is {ratio}, but pattern {n}:{m} removes {self.own_ratio}')

    def check_widths(self, weights: Mapping[str, Tensor]) -> None:
        """Raise :class:`UserError` for a weight whose rows the pattern doesn't divide."""
        if not self.pattern:
            return
        n, m = self.pattern
        for name, weight in weights.items():
            row = weight[0].numel()
            if row % m:
                raise UserError(
                    f'prune_cfg.sparsifier: pattern {n}:{m} does not divide {name}, whose rows hold '
                    f'{row} weights; exclude it or use another pattern'
                )

    def keep_masks(self, weights: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
        """Decide which weights stay, from the weights alone.

        Args:
            weights: Weights by name.
            ratio: Fraction of them to remove, in (0, 1).

        Returns:
            For each name a bool tensor of the weight's shape, True where it stays.
        """
        raise NotImplementedError

    def statistic(
        self, module: nn.Module, inputs: Sequence[Tensor], dense: Sequence[Tensor] = ()
    ) -> Any:
        """What :meth:`prune` wants to know of a layer's inputs, summed over ranks.

        Args:
            module: The layer.
            inputs: What it reads, one tensor per batch.
            dense: What it reads in the dense model, for the first of those batches (``dense_share``).
        """
        total = self.begin(module)
        for x in inputs:
            self.add(total, module, x)
        return self.finish(total)

    def begin(self, module: nn.Module) -> Any:
        """A sum over no inputs yet of a layer, for :meth:`add`."""
        raise NotImplementedError

    def add(self, total: Any, module: nn.Module, x: Tensor) -> None:
        """Add one more input of a layer to a sum, in place.

        Args:
            total: From :meth:`begin`.
            module: The layer.
            x: What it reads.
        """
        raise NotImplementedError

    def finish(self, total: Any) -> Any:
        """The statistic, over all ranks."""
        raise NotImplementedError

    def prune(
        self,
        weights: Mapping[str, Tensor],
        statistic: Any,
        ratios: Mapping[str, float],
        before: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Pruned]:
        """Prune layers that read the same input.

        Args:
            weights: (outputs, inputs) by name; left as they are.
            statistic: From :meth:`statistic`.
            ratios: Fraction to remove of each.
            before: Masks of an earlier round, shaped as the weights: what it removed goes first.

        Returns:
            For each name the weights with zeros in place, and a bool mask, True where they stay.

        Raises:
            UserError: numbers that don't allow it; the message names the layer.
        """
        raise NotImplementedError
