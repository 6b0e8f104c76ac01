"""Base class of the sparsifiers: methods that prune single weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...calibration.stream_shift import Shift
from ...common.errors import UserError
from ..weight_masks import parse_pattern

#: Weights after pruning, and a bool mask of the weights' shape, True where kept.
Pruned = tuple[Tensor, Tensor]


class Sparsifier:
    """Base of the sparsifiers: decides which single weights become zero.

    A method uses either the weights only (:meth:`keep_masks`), or also the inputs of each layer
    (``reads_inputs``; :meth:`statistic` and :meth:`prune`).

    Args:
        pattern: None for unstructured, or ``'N:M'``: N of M consecutive inputs are kept; the ratio must
            then be ``1 - N / M``.

    Raises:
        UserError: the pattern isn't valid.
    """

    #: Whether the method uses layer inputs, and so needs calibration data.
    reads_inputs = False
    #: Whether the model is pruned layer by layer, so that each layer's inputs come from the pruned layers
    #: before it; else all inputs are those of the model before pruning (:meth:`add`).
    sequential = True
    #: Fraction of the calibration batches for which :meth:`statistic` also needs the layer's inputs in the
    #: dense model.
    dense_share = 0.0
    #: Whether weights of several layers are compared with each other, so that all are needed at once.
    ranks_together = False

    #: Whether :meth:`statistic` takes ``shift``.
    reads_streams = False
    #: Fraction of the calibration batches whose loss's gradients weigh the outputs; if not 0,
    #: :meth:`prune` also takes ``output_weights``: what an error in each output counts, (outputs,) by name.
    weigh_outputs = 0.0

    def __init__(self, pattern: str | None = None):
        self.pattern = parse_pattern(pattern)

    @property
    def own_ratio(self) -> float | None:
        """The fraction removed by the N:M pattern; None without one."""
        return 1 - self.pattern[0] / self.pattern[1] if self.pattern else None

    def check_ratio(self, ratio: float, key: str = 'prune_cfg.budget.ratio') -> None:
        """Raise :class:`UserError` if ``ratio``, the value of ``key``, isn't what the pattern removes."""
        if self.pattern is None:
            return
        n, m = self.pattern
        if abs(ratio - (1 - n / m)) > 1e-9:
            raise UserError(f'{key} is {ratio}, but pattern {n}:{m} removes {1 - n / m}')

    def check_widths(self, weights: Mapping[str, Tensor]) -> None:
        """Raise :class:`UserError` if the pattern's M doesn't divide the rows of a weight."""
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

    def memory(self, rows: int, inputs: int) -> int:
        """Bytes that pruning layers which share an input needs beside their weights; an estimate.

        Args:
            rows: Outputs of these layers, together.
            inputs: Their inputs.
        """
        return 24 * rows * inputs

    def keep_masks(self, weights: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
        """Choose the weights to keep, from the weights only.

        Args:
            weights: Weights by name.
            ratio: Fraction of them to remove, in (0, 1).

        Returns:
            By name, bool tensors of the weights' shapes, True where kept.
        """
        raise NotImplementedError

    def statistic(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        dense: Sequence[Tensor] = (),
        shift: Shift | None = None,
    ) -> Any:
        """The statistic of a layer's inputs, over all ranks, that :meth:`prune` needs.

        Args:
            module: The layer.
            inputs: Its inputs, one tensor per batch.
            dense: Its inputs in the dense model, for the first of these batches (``dense_share``).
            shift: For ``reads_streams``, by what its outputs would restore the residual stream that they
                are added to; None: they are added to none.
        """
        total = self.begin(module)
        for x in inputs:
            self.add(total, module, x)
        return self.finish(total)

    def begin(self, module: nn.Module) -> Any:
        """An empty sum over a layer's inputs, for :meth:`add`."""
        raise NotImplementedError

    def add(self, total: Any, module: nn.Module, x: Tensor) -> None:
        """Add an input of a layer to a sum, in place.

        Args:
            total: From :meth:`begin`.
            module: The layer.
            x: Its input in one batch.
        """
        raise NotImplementedError

    def finish(self, total: Any) -> Any:
        """The statistic over all ranks, from the sum on this rank."""
        raise NotImplementedError

    def prune(
        self,
        weights: Mapping[str, Tensor],
        statistic: Any,
        ratios: Mapping[str, float],
        previous_masks: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Pruned]:
        """Prune layers that share an input.

        Args:
            weights: (outputs, inputs) by name; not changed.
            statistic: From :meth:`statistic`.
            ratios: Fraction of each weight to remove, by name.
            previous_masks: Masks of an earlier round, shaped as the weights: weights removed by it are
                removed first.

        Returns:
            By name, the new weights, zero where removed, and a bool mask, True where kept.

        Raises:
            UserError: the statistic doesn't allow it (NaN inputs); the message names the layers.
        """
        raise NotImplementedError
