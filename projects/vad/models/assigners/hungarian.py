"""The matching itself, for all decoder layers and samples at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..on_device import sent

# Stands for an infinite cost: what can't match well, such as a true box without extent.
LARGE = 1e8


@dataclass(frozen=True)
class Matches:
    """Which query of which sample answers for which truth, in every decoder layer.

    Every field is ``(L, P)``, P being the number of pairs in the batch, by sample and then query.

    Attributes:
        batch: Index of the sample.
        query: Index of the query.
        gt: Index into the batch's truths, concatenated in the order of the samples.
        order: For map elements, which of the truth's orders of points fits best.
    """

    batch: Tensor
    query: Tensor
    gt: Tensor
    order: Tensor | None = None

    @property
    def num_pairs(self) -> int:
        """Pairs in a layer: for each sample, as many as there are truths or queries."""
        return self.query.shape[1]

    def pick(self, values: Tensor) -> Tensor:
        """The matched queries' rows ``(L, P, ...)`` of ``(L, B, Q, ...)``."""
        layer = torch.arange(len(values), device=values.device)[:, None]
        return values[layer, self.batch, self.query]


def match(costs: Sequence[Tensor]) -> Matches:
    """One-to-one pairs with the least total cost, for each sample and layer by itself.

    Args:
        costs: For each sample, ``(L, Q, number of truths)``.
    """
    return match_all([costs])[0]


def match_all(tasks: Sequence[Sequence[Tensor]]) -> list[Matches]:
    """:func:`match` for several kinds of truths.

    All costs go to the CPU in one copy, which is the only time the device is waited for.

    Args:
        tasks: For each kind, for each sample, ``(L, Q, number of truths)``.
    """
    costs = [cost for task in tasks for cost in task]
    flat = torch.cat([cost.float().flatten() for cost in costs])
    flat = torch.nan_to_num(flat, nan=float('nan'), posinf=LARGE, neginf=-LARGE).cpu().numpy()
    pieces = np.split(flat, np.cumsum([cost.numel() for cost in costs])[:-1])
    solved = [
        [linear_sum_assignment(layer) for layer in piece.reshape(tuple(cost.shape))]
        for cost, piece in zip(costs, pieces, strict=True)
    ]
    found, begin = [], 0
    for task in tasks:
        pairs, first = [], 0
        for sample, (cost, layers) in enumerate(zip(task, solved[begin:], strict=False)):
            query, gt = (np.stack(side) for side in zip(*layers, strict=True))
            pairs.append(np.stack([np.full_like(query, sample), query, gt + first], axis=0))
            first += cost.shape[-1]
        found.append(np.concatenate(pairs, axis=2))
        begin += len(task)
    index = sent(np.concatenate(found, axis=2), costs[0], torch.long)
    return [Matches(*part) for part in index.split([pairs.shape[2] for pairs in found], dim=2)]
