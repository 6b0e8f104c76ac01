"""SparseGPT: pruning with the optimal brain surgeon update of the kept weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.precision import without_tf32
from ...common.registry import SPARSIFIERS
from ...common.validation import at_least
from ..optimal_brain_surgeon import damped_factor
from .layer_fit import LayerFit

#: Columns whose errors are propagated one by one; a matrix product propagates them further right.
STEP = 16


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
class SparseGPT(LayerFit):
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
        targets: What ``dense_targets`` refers to: ``'layer'``, the layer's own output; or ``'stream'``,
            where a layer's output is added to a residual stream, what makes that stream the dense model's.
        refinement: Steps of conjugate gradients on the kept weights once all are chosen: each row's least
            squares over what it keeps, which the update column by column only approaches; 0: none.
        weigh_outputs: Fraction of the calibration batches, in [0, 1], that also run backward: the choice
            then counts each output's error by the root mean square of the loss's gradient there. 0: all
            outputs of a layer count alike, and nothing runs backward. Patterns choose within rows, where
            it does nothing.

    Source: Frantar & Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in
    One-Shot", arXiv 2301.00774. Dense targets: as in Li et al., "GPTAQ", arXiv 2504.02692, for
    quantization; here before the pruning, in closed form. Refinement: Meng et al., "ALPS", arXiv
    2406.07831. Weighed outputs: the diagonal of Kim et al., "GuidedQuant", arXiv 2505.07004.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='SparseGPT'),
        ...     budget=dict(ratio=0.5), calibration=dict(num_samples=128))
    """

    def __init__(
        self,
        pattern: str | None = None,
        block_size: int = 128,
        mask_block_size: int = 128,
        damping: float = 0.01,
        dense_targets: float = 0.75,
        dense_share: float = 0.4,
        targets: str = 'layer',
        refinement: int = 0,
        weigh_outputs: float = 0.0,
    ):
        fit = damping, dense_targets, dense_share, targets, refinement, weigh_outputs
        super().__init__(pattern, *fit)
        at_least('block_size', block_size, 1)
        at_least('mask_block_size', mask_block_size, 1)
        if max(block_size, mask_block_size) % min(block_size, mask_block_size):
            raise UserError(
                f'mask_block_size is {mask_block_size}; it must divide block_size {block_size} or be '
                'a multiple of it'
            )
        if self.pattern and block_size % self.pattern[1]:
            raise UserError(
                f'block_size is {block_size}; with a pattern it must be a multiple of '
                f'{self.pattern[1]}'
            )
        self.block_size, self.mask_block_size = block_size, mask_block_size

    def choose(self, targets, gram, ratios, previous_masks, name):
        """See :meth:`LayerFit.choose`."""
        factor = damped_factor(gram, self.damping, name, of_inverse=True)
        blocks = self.block_size, self.mask_block_size
        pruned = sparsegpt(targets, factor, ratios, self.pattern, *blocks, previous_masks)
        new, keep = zip(*pruned, strict=True)
        return list(new), list(keep)
