"""What a criterion is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.validation import one_of
from ...structure.unit_group import UnitGroup

if TYPE_CHECKING:
    from ...calibration.collect import Statistics

NORMALIZERS = {
    'none': lambda score: score,
    'mean': lambda score: score / score.mean().clamp_min(1e-30),
    'max': lambda score: score / score.max().clamp_min(1e-30),
}


class Criterion:
    """Base of the criteria: gives every unit of a group a score; higher is more important.

    Args:
        normalize: Divide the scores of each group by their ``'mean'`` or ``'max'``, or ``'none'``.

    Class attributes:
        statistics: What it needs from calibration batches: a subset of
            ``{'gradients', 'squared_gradients', 'activations', 'fisher', 'usage'}``. Empty: no data set is
            touched.
    """

    statistics: frozenset[str] = frozenset()
    #: The budget's fraction removed, as the pruner sets it before scoring.
    ratio: float = 0.0
    #: Whether the scores depend on it.
    reads_ratio = False

    def __init__(self, normalize: str = 'none'):
        self.normalize = one_of('normalize', normalize, NORMALIZERS)

    def score(
        self, group: UnitGroup, tensors: dict[str, Tensor], statistics: 'Statistics | None'
    ) -> Tensor:
        """Scores of one group's units.

        Args:
            group: The group.
            tensors: The model's parameters and buffers by name.
            statistics: What calibration gathered; None if nothing was asked for.

        Returns:
            float64 tensor of shape (group.size,).
        """
        raise NotImplementedError

    def check(self, groups: Sequence[UnitGroup]) -> None:
        """Raise :class:`UserError` for groups that this criterion can't score; before any data is read."""

    @torch.no_grad()
    def scores(
        self,
        groups: Sequence[UnitGroup],
        tensors: dict[str, Tensor],
        statistics: 'Statistics | None' = None,
    ) -> list[Tensor]:
        """Normalised scores of every group, on the CPU.

        Raises:
            UserError: a score isn't finite; the message names the group.
        """
        raw = [self.score(group, tensors, statistics) for group in groups]
        result = []
        for group, score in zip(groups, raw, strict=True):
            score = NORMALIZERS[self.normalize](score.cpu())
            if not bool(score.isfinite().all()):
                raise UserError(
                    f'scores of {group.name} are not finite: its weights or gradients hold NaN or inf'
                )
            result.append(score)
        return result


def check_read(criterion: Criterion, groups: Sequence[UnitGroup]) -> None:
    """Raise :class:`UserError` for a group whose units no layer reads: there is nothing to look at."""
    for group in groups:
        if not any(cut.side == 'out' for cut in group.cuts):
            raise UserError(
                f'prune_cfg.criterion: {type(criterion).__name__} cannot score {group.name}: nothing '
                f'reads a {group.kind} as input; use another criterion or other units'
            )
