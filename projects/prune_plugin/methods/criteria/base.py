"""What a criterion is."""

import logging
from collections.abc import Mapping, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor

from ...calibration.statistics import Statistic, Statistics
from ...common.errors import UserError
from ...common.model_argument import check_values
from ...common.validation import one_of
from ...structure.unit_group import UnitGroup

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
        statistics: What it needs from calibration batches: members of :class:`Statistic`, or their values.
            Empty: no data set is touched.
        reads_ratio: Whether the scores depend on the budget's ratio.
    """

    statistics: frozenset[str] = frozenset()
    reads_ratio = False

    def __init__(self, normalize: str = 'none'):
        self.normalize = one_of('normalize', normalize, NORMALIZERS)

    @property
    def needed(self) -> frozenset[Statistic]:
        """``statistics``, checked.

        Raises:
            UserError: one of them is none that calibration can gather.
        """
        for name in self.statistics:
            one_of(f'{type(self).__name__}.statistics', name, [s.value for s in Statistic])
        return frozenset(map(Statistic, self.statistics))

    def score(
        self, group: UnitGroup, tensors: Mapping[str, Tensor], statistics: Statistics | None
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

    def raw_scores(
        self,
        groups: Sequence[UnitGroup],
        tensors: Mapping[str, Tensor],
        statistics: Statistics | None,
        ratio: float | None,
    ) -> list[Tensor]:
        """:meth:`score` of every group, for criteria that look at all groups at once.

        Args:
            groups: The groups.
            tensors: As for :meth:`score`.
            statistics: As for :meth:`score`.
            ratio: The budget's fraction removed; for criteria with ``reads_ratio``.
        """
        return [self.score(group, tensors, statistics) for group in groups]

    def check(self, groups: Sequence[UnitGroup]) -> None:
        """Raise :class:`UserError` for groups that this criterion can't score; before any data is read."""

    @torch.no_grad()
    def scores(
        self,
        groups: Sequence[UnitGroup],
        tensors: Mapping[str, Tensor],
        statistics: Statistics | None = None,
        ratio: float | None = None,
    ) -> list[Tensor]:
        """Normalized scores of every group, on the CPU. Arguments as for :meth:`raw_scores`.

        Raises:
            UserError: a score isn't finite, with the group's name, or weights that it reads have no values.
        """
        result = []
        try:
            raw = self.raw_scores(groups, tensors, statistics, ratio)
        except (
            NotImplementedError,
            RuntimeError,
        ) as error:  # as PyTorch refuses to read meta tensors
            cut = {c.name for group in groups for c in group.cuts}
            read = {name: tensor for name, tensor in tensors.items() if name in cut}
            check_values(read, f'prune_cfg.criterion {type(self).__name__} reads it', error)
            raise
        for group, score in zip(groups, raw, strict=True):
            if not isinstance(score, Tensor) or score.shape != (group.size,):
                given = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
                raise UserError(
                    f'prune_cfg.criterion {type(self).__name__} gives {given} as the scores of '
                    f'{group.name}; it must be a tensor of shape ({group.size},), one number per unit'
                )
            score = NORMALIZERS[self.normalize](score.cpu())
            if not bool(score.isfinite().all()):
                raise UserError(
                    f'scores of {group.name} are not finite: its weights or gradients hold NaN or inf'
                )
            result.append(score)
        return result


def checked(scores: list[Tensor], criterion: Criterion) -> list[Tensor]:
    """The scores of all groups; where none is larger than another, that is no choice.

    Raises:
        UserError: all are zero, as gradients are of a loss that depends on nothing.
    """
    least, most = min(float(s.min()) for s in scores), max(float(s.max()) for s in scores)
    if least < most:
        return scores
    name = type(criterion).__name__
    if not most and criterion.needed:
        raise UserError(
            f'prune_cfg.criterion: {name} scores every unit 0: the loss depends on none of them; check '
            'prune_cfg.calibration.loss_weights and the calibration data'
        )
    if sum(map(len, scores)) > 1:
        print_log(
            f'{name} scores every unit {most:g}: which of them go is arbitrary',
            'current',
            logging.WARNING,
        )
    return scores


def check_read(criterion: Criterion, groups: Sequence[UnitGroup]) -> None:
    """Raise :class:`UserError` for a group whose units are no layer's inputs: nothing can be observed."""
    for group in groups:
        if not any(cut.side == 'out' for cut in group.cuts):
            raise UserError(
                f'prune_cfg.criterion: {type(criterion).__name__} cannot score {group.name}: nothing '
                f'reads a {group.kind} as input; use another criterion or other units'
            )


def expert_outputs(criterion: Criterion, group: UnitGroup, statistics: Statistics) -> Tensor:
    """Mean norm of what each expert adds to its tokens.

    Raises:
        UserError: none of its tokens was seen.
    """
    if not bool(statistics.expert_tokens[group.name].any()):
        raise UserError(
            f'prune_cfg.criterion: {type(criterion).__name__} cannot score {group.name}: its experts are '
            'called in another way than those of transformers; use L1, Taylor or Fisher'
        )
    return statistics.expert_outputs[group.name]
