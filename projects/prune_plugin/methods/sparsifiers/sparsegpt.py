"""SparseGPT: pruning with the optimal brain surgeon update of the kept weights."""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from ...calibration.layer_inputs import input_drift, input_gram
from ...common.errors import UserError
from ...common.precision import without_tf32
from ...common.registry import SPARSIFIERS
from ...common.validation import at_least, check_number, is_number
from ..optimal_brain_surgeon import damped_factor, toward_dense
from .base import Sparsifier

#: Columns whose errors are propagated one by one; a matrix product propagates them further right.
STEP = 16
#: Damping for dense targets relative to the Hessian's: they have fewer samples, and fit all weights.
DENSE_DAMPING = 30.0


@without_tf32()
def sparsegpt(
    weights: Sequence[Tensor],
    factor: Tensor,
    ratios: Sequence[float],
    pattern: tuple[int, int] | None = None,
    block_size: int = 128,
    mask_block_size: int = 128,
    previous_masks: Sequence[Tensor] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Prune layers that share an input, column by column, updating the columns to the right.

    The score of ``w_ij`` is ``w_ij ** 2 / U_jj ** 2``. When column j is pruned, the columns after it
    compensate for its removed weights: ``W[:, j+1:] -= err * U[j, j+1:]``, ``err = removed / U_jj``.

    Args:
        weights: (outputs, inputs) each; the number of outputs may differ. Not changed.
        factor: U, the upper Cholesky factor of the inverse of the damped Hessian
            (``inverse = U.T @ U``), (inputs, inputs).
        ratios: Fraction of each weight to remove; ignored with a pattern.
        pattern: (N, M): N of M consecutive inputs are kept.
        block_size: Columns after which all columns to the right are updated ("B").
        mask_block_size: Columns whose mask is chosen together ("Bs"); a divisor or a multiple of
            ``block_size``. Ignored with a pattern.
        previous_masks: Masks of an earlier round: weights removed by it are removed first.

    Returns:
        For each weight, the new one, float32 and zero where removed, and a bool mask, True where kept.

    Source: Frantar & Alistarh, "SparseGPT", arXiv 2301.00774, algorithm 1.
    """
    rows = [len(weight) for weight in weights]
    # Transposed, so that each column to prune is contiguous in memory.
    work = torch.cat([weight.float() for weight in weights]).T.contiguous()
    inputs = len(work)
    removed = torch.zeros_like(work, dtype=torch.bool)
    previously = None if previous_masks is None else ~torch.cat(list(previous_masks)).T
    mask_columns = pattern[1] if pattern else mask_block_size
    diagonal = factor.diagonal()
    removed_counts = [0] * len(rows)

    def choose_mask(start: int) -> None:
        end = min(start + mask_columns, inputs)
        scores = (work[start:end] / diagonal[start:end, None]).square()
        if previously is not None:
            scores.masked_fill_(previously[start:end], -1)
        if pattern:
            least = scores.topk(pattern[1] - pattern[0], dim=0, largest=False, sorted=False)
            removed[start:end].scatter_(0, least.indices, True)
            return
        first = 0
        for layer, (rows_of_layer, ratio) in enumerate(zip(rows, ratios, strict=True)):
            layer_rows = slice(first, first + rows_of_layer)
            part = scores[:, layer_rows]
            count = round(ratio * end * rows_of_layer) - removed_counts[layer]
            if previously is not None:
                layer_previously = previously[:, layer_rows]
                # Remove what was removed previously, and reserve what later columns have of it.
                later = int(layer_previously[end:].sum())
                total = round(ratio * inputs * rows_of_layer)
                count = min(count, total - removed_counts[layer] - later)
                count = max(count, int(layer_previously[start:end].sum()))
            removed_counts[layer] += count
            least = part.flatten().topk(count, largest=False, sorted=False)
            flat = removed.new_zeros(part.numel()).index_fill_(0, least.indices, True)
            removed[start:end, layer_rows] = flat.view(part.shape)
            first += rows_of_layer

    # A mask can be chosen only where all its columns are up to date.
    step = mask_columns if mask_columns % STEP and STEP % mask_columns else STEP
    columns, removed_columns, divisors = work.unbind(), removed.unbind(), diagonal.tolist()
    for start in range(0, inputs, block_size):
        end = min(start + block_size, inputs)
        errors = torch.empty_like(work[start:end])
        for low in range(start, end, step):
            high = min(low + step, end)
            for j in range(low, high):
                if j % mask_columns == 0:
                    choose_mask(j)
                error = torch.mul(columns[j], removed_columns[j], out=errors[j - start])
                columns[j].sub_(error)
                error.div_(divisors[j])
                if j + 1 < high:
                    work[j + 1 : high].addr_(factor[j, j + 1 : high], error, alpha=-1)
            if high < end:
                work[high:end].addmm_(
                    factor[low:high, high:end].T, errors[low - start : high - start], alpha=-1
                )
        if end < inputs:
            work[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    return [
        (new.T.contiguous(), mask.logical_not().T.contiguous())
        for new, mask in zip(work.split(rows, 1), removed.split(rows, 1), strict=True)
    ]


@SPARSIFIERS.register_module()
class SparseGPT(Sparsifier):
    """Remove weights by their optimal brain surgeon score, and update the kept ones to compensate.

    One forward pass over the calibration data, layer by layer. Layers that share an input (query, key and
    value, gate and up) share one Hessian and its factorisation.

    With ``dense_targets``, a layer is fitted to its output in the dense model instead of its old weights'
    output on the inputs that pruned layers produce, which also corrects the accumulated error of those
    layers. That takes a second forward pass, of the dense model, and a second matrix per input. It matters
    more at higher ratios.

    Args:
        pattern: See :class:`Sparsifier`.
        block_size: Columns after which all columns to the right are updated ("B").
        mask_block_size: Columns whose mask is chosen together ("Bs").
        damping: Fraction of the Hessian's mean diagonal to add to its diagonal.
        dense_targets: The target between two outputs of the dense layer, in [0, 1]: 0 is that on the
            pruned model's inputs, 1 that on the dense model's inputs.
        dense_share: Fraction of the calibration batches that also run through the dense model for that, in
            [0, 1]; 0 is the same as ``dense_targets=0``.

    Source: Frantar & Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in
    One-Shot", arXiv 2301.00774. Dense targets: as in Li et al., "GPTAQ", arXiv 2504.02692, for
    quantization; here before the pruning, in closed form.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='SparseGPT'),
        ...     budget=dict(ratio=0.5), calibration=dict(num_samples=128))
    """

    reads_inputs = True

    def __init__(
        self,
        pattern: str | None = None,
        block_size: int = 128,
        mask_block_size: int = 128,
        damping: float = 0.01,
        dense_targets: float = 0.75,
        dense_share: float = 0.4,
    ):
        super().__init__(pattern)
        at_least('block_size', block_size, 1)
        at_least('mask_block_size', mask_block_size, 1)
        if max(block_size, mask_block_size) % min(block_size, mask_block_size):
            raise UserError(
                f'mask_block_size is {mask_block_size}; it must divide block_size {block_size} or be '
                'a multiple of it'
            )
        check_number('damping', damping, 0, inf)
        for name, value in (('dense_targets', dense_targets), ('dense_share', dense_share)):
            if not is_number(value) or not 0 <= value <= 1:
                raise UserError(f'{name} is {value!r}; it must be a number in [0, 1]')
        if self.pattern and block_size % self.pattern[1]:
            raise UserError(
                f'block_size is {block_size}; with a pattern it must be a multiple of '
                f'{self.pattern[1]}'
            )
        self.block_size, self.mask_block_size = block_size, mask_block_size
        self.damping = float(damping)
        self.dense_targets = float(dense_targets)
        self.dense_share = float(dense_share) if dense_targets else 0.0

    def memory(self, rows, inputs):
        """See :meth:`Sparsifier.memory`: matrices of the inputs where one is factorised, or copies of the
        weights in float32 where they are updated."""
        statistics = 3 if self.dense_share else 1
        square = 4 * inputs * inputs
        factorising = (statistics + 5) * square + 4 * rows * inputs
        return max(factorising, (statistics + 1) * square + 15 * rows * inputs)

    def statistic(self, module, inputs, dense=()):
        """Mean Gram matrices of the layer's inputs, float32 (inputs, inputs) each.

        Returns:
            ``X.T @ X / n`` over all batches; the same over the batches with dense inputs X'; and
            ``(X' - X).T @ X / n`` over these. The last two are None without ``dense_targets``.
        """
        if not self.dense_share:
            gram, rows = input_gram(module, inputs)
            return gram.div_(max(rows, 1)), None, None
        paired, rest = inputs[: len(dense)], inputs[len(dense) :]
        (paired_gram, rows), (others, count) = input_gram(module, paired), input_gram(module, rest)
        drift = input_drift(module, paired, dense).div_(max(rows, 1))
        gram = others.add_(paired_gram).div_(max(rows + count, 1))
        return gram, paired_gram.div_(max(rows, 1)), drift

    def prune(self, weights, statistic, ratios, previous_masks=None):
        """See :meth:`Sparsifier.prune`."""
        gram, paired_gram, drift = statistic
        names = ', '.join(weights)
        unused = gram.diagonal() == 0
        targets = [weight.float().masked_fill(unused, 0) for weight in weights.values()]
        if drift is not None:
            damping = DENSE_DAMPING * self.damping
            targets = toward_dense(targets, paired_gram, drift, self.dense_targets, damping, names)
        factor = damped_factor(gram, self.damping, names, of_inverse=True)
        pruned = sparsegpt(
            targets,
            factor,
            [ratios[name] for name in weights],
            self.pattern,
            self.block_size,
            self.mask_block_size,
            None if previous_masks is None else [previous_masks[name] for name in weights],
        )
        return {
            name: (new.to(weight.dtype), keep)
            for (name, weight), (new, keep) in zip(weights.items(), pruned, strict=True)
        }
