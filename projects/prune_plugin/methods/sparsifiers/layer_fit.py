"""Base class of the sparsifiers that fit each layer's outputs: targets, choice, refinement."""

from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType

import torch
from torch import Tensor

from ...calibration.layer_inputs import input_drift, input_gram
from ...calibration.stream_shift import Shift
from ...common.validation import at_least, check_fraction, check_number, one_of
from ..optimal_brain_surgeon import refit_kept, toward_dense
from .base import Sparsifier

#: Damping for dense targets relative to the Hessian's: they have fewer samples, and fit all weights.
DENSE_DAMPING = 30.0


#: Output weights where all outputs count alike.
NONE: Mapping[str, Tensor] = MappingProxyType({})
#: Least weight of an output, relative to the mean: an output that hardly matters isn't worth nothing.
LEAST_WEIGHT = 1e-3


def row_scale(weights: Mapping[str, Tensor], output_weights: Mapping[str, Tensor]) -> Tensor:
    """Factors of the rows of stacked weights, float32 (outputs, 1), with a mean of 1 over each layer."""
    scales = []
    for name, weight in weights.items():
        found = output_weights.get(name)
        if found is None:
            scales.append(torch.ones(len(weight)))
            continue
        found = found.float().cpu() / found.float().mean().clamp_min(1e-30).cpu()
        scales.append(found.clamp_min(LEAST_WEIGHT))
    return torch.cat(scales)[:, None]


class LayerFit(Sparsifier):
    """Base of the sparsifiers that choose weights and update the kept ones, for a layer's outputs.

    Targets towards the dense model come first, then the choice (:meth:`choose`), then the refinement of
    what is kept.

    Args:
        pattern: See :class:`Sparsifier`.
        damping: Fraction of the Hessian's mean diagonal to add to its diagonal.
        dense_targets: The target between the dense layer's output on the pruned model's inputs (0), and the
            dense model's own (1), in [0, 1].
        dense_share: Fraction of the calibration batches that also run through the dense model for that, in
            [0, 1]; 0 is the same as ``dense_targets=0``.
        targets: What ``dense_targets`` refers to: ``'layer'``, the layer's own output; or ``'stream'``,
            where a layer's output is added to a residual stream, what makes that stream the dense model's.
        refinement: Steps of conjugate gradients on the kept weights once all are chosen; 0: none.
        weigh_outputs: Fraction of the calibration batches, in [0, 1], over which the gradient of the loss
            with respect to each output is taken (root mean square); the choice then weighs each row by it.
    """

    reads_inputs = True

    def __init__(
        self,
        pattern: str | None,
        damping: float,
        dense_targets: float,
        dense_share: float,
        targets: str,
        refinement: int,
        weigh_outputs: float,
    ):
        super().__init__(pattern)
        check_number('damping', damping, 0, inf)
        for name, value in (
            ('dense_targets', dense_targets),
            ('dense_share', dense_share),
            ('weigh_outputs', weigh_outputs),
        ):
            check_fraction(name, value)
        at_least('refinement', refinement, 0)
        self.reads_streams = one_of('targets', targets, ('layer', 'stream')) == 'stream'
        self.damping, self.refinement = float(damping), refinement
        self.weigh_outputs = float(weigh_outputs)
        self.dense_targets = float(dense_targets)
        self.dense_share = float(dense_share) if dense_targets else 0.0

    def memory(self, rows, inputs):
        """See :meth:`Sparsifier.memory`: matrices of the inputs where one is factorised, or copies of the
        weights in float32 where they are updated."""
        statistics = 3 if self.dense_share else 1
        square = 4 * inputs * inputs
        factorising = (statistics + 5) * square + 4 * rows * inputs
        updating = (statistics + 1 + bool(self.refinement)) * square + 23 * rows * inputs
        return max(factorising, updating)

    def statistic(self, module, inputs, dense=(), shift=None):
        """Mean Gram matrices of the layer's inputs, float32 (inputs, inputs) each.

        Returns:
            ``X.T @ X / n`` over all batches; the same over the batches with dense inputs X'; and
            ``(X' - X).T @ X / n`` over these, or ``shift``, if it is given. The last two are None without
            ``dense_targets``.
        """
        if not self.dense_share:
            gram, rows = input_gram(module, inputs)
            return gram.div_(max(rows, 1)), None, None
        paired, rest = inputs[: len(dense)], inputs[len(dense) :]
        (paired_gram, rows), (others, count) = input_gram(module, paired), input_gram(module, rest)
        drift = shift
        if drift is None:
            drift = input_drift(module, paired, dense).div_(max(rows, 1))
        gram = others.add_(paired_gram).div_(max(rows + count, 1))
        return gram, paired_gram.div_(max(rows, 1)), drift

    def prune(self, weights, statistic, ratios, previous_masks=None, output_weights=NONE):
        """See :meth:`Sparsifier.prune`."""
        gram, paired_gram, drift = statistic
        names, rows = ', '.join(weights), [len(weight) for weight in weights.values()]
        unused = gram.diagonal() == 0
        targets = torch.cat([w.float() for w in weights.values()]).masked_fill_(unused, 0)
        if drift is not None:
            lacking = drift.product if isinstance(drift, Shift) else targets @ drift
            damping = DENSE_DAMPING * self.damping
            targets = toward_dense(
                targets, paired_gram, lacking, self.dense_targets, damping, names
            )
        earlier = None if previous_masks is None else [previous_masks[name] for name in weights]
        # Rows are independent but for the choice: scaling them weighs it, and nothing else.
        scale = row_scale(weights, output_weights).to(targets.device)
        parts, kept = self.choose(
            (targets * scale).split(rows), gram, [ratios[name] for name in weights], earlier, names
        )
        new = torch.cat(list(parts)) / scale
        if self.refinement:
            keep = torch.cat(list(kept))
            new = refit_kept(new, targets, gram, keep, self.damping, self.refinement)
        return {
            name: (part.to(weight.dtype), keep)
            for (name, weight), part, keep in zip(
                weights.items(), new.split(rows), kept, strict=True
            )
        }

    def choose(
        self,
        targets: Sequence[Tensor],
        gram: Tensor,
        ratios: Sequence[float],
        previous_masks: Sequence[Tensor] | None,
        name: str,
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Choose the weights of layers that share an input.

        Args:
            targets: Dense weights whose outputs shall be kept, float32 (outputs, inputs) each.
            gram: ``X.T @ X / n``, (inputs, inputs).
            ratios: Fraction of each to remove; ignored with a pattern.
            previous_masks: Masks of an earlier round: what it removed is removed first.
            name: The layers, for messages.

        Returns:
            New weights, float32 and zero where removed, and bool masks, True where kept.
        """
        raise NotImplementedError
