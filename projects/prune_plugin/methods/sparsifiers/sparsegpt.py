"""Pruning with the optimal-brain-surgeon update of the weights that stay."""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from ...calibration.layer_inputs import input_drift, input_gram
from ...common.errors import UserError
from ...common.registry import SPARSIFIERS
from ...common.validation import at_least, check_number, is_number
from ..optimal_brain_surgeon import damped_factor, toward_dense
from .base import Sparsifier

#: Columns whose errors are spread one by one before a matrix product spreads them further.
STEP = 16
#: Damping of the dense targets, in that of the Hessian: fewer samples, and all weights are free.
DENSE_DAMPING = 30.0


def sparsegpt(
    weights: Sequence[Tensor],
    factor: Tensor,
    ratios: Sequence[float],
    pattern: tuple[int, int] | None = None,
    block_size: int = 128,
    mask_block_size: int = 128,
    before: Sequence[Tensor] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Prune layers that read the same input, column by column, correcting the columns to come.

    Weight ``w_ij`` is worth ``w_ij ** 2 / U_jj ** 2``. When column j is reached, what it loses is made
    up for by the columns after it: ``W[:, j+1:] -= err * U[j, j+1:]``, ``err = removed / U_jj``.

    Args:
        weights: (outputs, inputs) each; the outputs may differ. Left as they are.
        factor: U, upper, of the inverse damped Hessian (``inverse = U.T @ U``), (inputs, inputs).
        ratios: Fraction of each to remove; not read with a pattern.
        pattern: (N, M): of M consecutive inputs, N are kept.
        block_size: Columns after which all columns to the right are brought up to date ("B").
        mask_block_size: Columns whose mask is chosen together ("Bs"); divides ``block_size`` or is a
            multiple of it. Not read with a pattern.
        before: Masks of an earlier round: what it removed goes first.

    Returns:
        For each the new weights, float32 with zeros in place, and a bool mask, True where they stay.

    Source: Frantar & Alistarh, "SparseGPT", arXiv 2301.00774, algorithm 1.
    """
    rows = [len(weight) for weight in weights]
    # Transposed, a column to be pruned lies in one piece of memory.
    work = torch.cat([weight.float() for weight in weights]).T.contiguous()
    inputs = len(work)
    goes = torch.zeros_like(work, dtype=torch.bool)
    gone = None if before is None else ~torch.cat(list(before)).T
    chosen = pattern[1] if pattern else mask_block_size
    diagonal = factor.diagonal()
    dropped = [0] * len(rows)

    def choose(start: int) -> None:
        end = min(start + chosen, inputs)
        scores = (work[start:end] / diagonal[start:end, None]).square()
        if gone is not None:
            scores.masked_fill_(gone[start:end], -1)
        if pattern:
            least = scores.topk(pattern[1] - pattern[0], dim=0, largest=False, sorted=False)
            goes[start:end].scatter_(0, least.indices, True)
            return
        first = 0
        for layer, (count, ratio) in enumerate(zip(rows, ratios, strict=True)):
            part = scores[:, first : first + count]
            drop = round(ratio * end * count) - dropped[layer]
            if gone is not None:
                own = gone[:, first : first + count]
                # What went before goes again, and what is left of it for later is set aside.
                later = int(own[end:].sum())
                drop = min(drop, round(ratio * inputs * count) - dropped[layer] - later)
                drop = max(drop, int(own[start:end].sum()))
            dropped[layer] += drop
            least = part.flatten().topk(drop, largest=False, sorted=False)
            flat = goes.new_zeros(part.numel()).index_fill_(0, least.indices, True)
            goes[start:end, first : first + count] = flat.view(part.shape)
            first += count

    # A mask must be chosen where all its columns are up to date.
    step = chosen if chosen % STEP and STEP % chosen else STEP
    columns, going, divisors = work.unbind(), goes.unbind(), diagonal.tolist()
    for start in range(0, inputs, block_size):
        end = min(start + block_size, inputs)
        errors = torch.empty_like(work[start:end])
        for low in range(start, end, step):
            high = min(low + step, end)
            for j in range(low, high):
                if j % chosen == 0:
                    choose(j)
                error = torch.mul(columns[j], going[j], out=errors[j - start])
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
        (new.T.contiguous(), gone.logical_not().T.contiguous())
        for new, gone in zip(work.split(rows, 1), goes.split(rows, 1), strict=True)
    ]


@SPARSIFIERS.register_module()
class SparseGPT(Sparsifier):
    """Remove weights by their optimal-brain-surgeon score, and let the others make up for them.

    One forward pass over the calibration data; layers that read the same input (query, key and value,
    gate and up) share one Hessian and its factorisation.

    With ``dense_targets`` a layer is to put out, on what it reads behind pruned layers, not only what it
    did, but what it puts out in the dense model: errors of the layers before it are made up for too. That
    takes a second forward pass, of the dense model, and a second matrix per input, and it matters the
    more, the more is removed.

    Args:
        pattern: See :class:`Sparsifier`.
        block_size: Columns after which all columns to the right are brought up to date ("B").
        mask_block_size: Columns whose mask is chosen together ("Bs").
        damping: Share of the Hessian's mean diagonal that is added to its diagonal.
        dense_targets: How far targets go from what the layer puts out on the inputs at hand (0) to what
            the dense layer puts out on the dense model's inputs (1), in [0, 1].
        dense_share: Fraction of the calibration batches that run through the dense model for it, in
            [0, 1]; 0 is as ``dense_targets=0``.

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

    def statistic(self, module, inputs, dense=()):
        """Means over rows of outer products, float32 (inputs, inputs) each.

        Returns:
            That of the inputs, that of the inputs which are known of the dense model too, and that of
            the difference (dense - inputs) with them; the last two None without ``dense_targets``.
        """
        if not self.dense_share:
            gram, rows = input_gram(module, inputs)
            return gram.div_(max(rows, 1)), None, None
        own, rest = inputs[: len(dense)], inputs[len(dense) :]
        (known, rows), (others, count) = input_gram(module, own), input_gram(module, rest)
        drift = input_drift(module, own, dense).div_(max(rows, 1))
        gram = others.add_(known).div_(max(rows + count, 1))
        return gram, known.div_(max(rows, 1)), drift

    def prune(self, weights, statistic, ratios, before=None):
        """See :meth:`Sparsifier.prune`."""
        gram, known, drift = statistic
        names = ', '.join(weights)
        unused = gram.diagonal() == 0
        targets = [weight.float().masked_fill(unused, 0) for weight in weights.values()]
        if drift is not None:
            damping = DENSE_DAMPING * self.damping
            targets = toward_dense(targets, known, drift, self.dense_targets, damping, names)
        factor = damped_factor(gram, self.damping, names, of_inverse=True)
        done = sparsegpt(
            targets,
            factor,
            [ratios[name] for name in weights],
            self.pattern,
            self.block_size,
            self.mask_block_size,
            before and [before[name] for name in weights],
        )
        return {
            name: (new.to(weight.dtype), keep)
            for (name, weight), (new, keep) in zip(weights.items(), done, strict=True)
        }
