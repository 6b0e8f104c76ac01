"""What both pruners have in common."""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Self

from ...calibration.data import CalibrationData
from ...calibration.settings import CalibrationSettings
from ...common.errors import UserError
from ...common.patterns import patterns_of
from ...common.registry import BUDGETS, PRUNERS, SCHEDULES, build
from ...common.settings import read_settings
from ...common.validation import is_number
from ...evaluation.settings import ProfileSettings
from ...training.settings import RecoverySettings
from ..budgets.base import Budget
from ..schedules import OneShot, Round, Schedule

#: Gives the calibration batches when, and only when, a method needs them.
DataFactory = Callable[[CalibrationSettings], CalibrationData]


def with_ratio(budget: Mapping) -> dict[str, Any]:
    """A budget block whose ``density``, the fraction KEPT, has become a ratio, the fraction removed.

    Raises:
        UserError: both are given, or a word that some read as the one and some as the other.
    """
    budget = dict(budget)
    if 'sparsity' in budget:
        raise UserError(
            f'prune_cfg.budget.sparsity={budget["sparsity"]!r} is ambiguous; give ratio, the fraction '
            'removed, or density, the fraction kept'
        )
    if 'density' not in budget:
        return budget
    density = budget.pop('density')
    if 'ratio' in budget:
        raise UserError(
            f'prune_cfg.budget has ratio={budget["ratio"]!r} (the fraction removed) and '
            f'density={density!r} (the fraction kept); give one of them'
        )
    if not is_number(density) or not 0 < density < 1:
        raise UserError(
            f'prune_cfg.budget.density is {density!r}; it must be a number in (0, 1), the fraction kept'
        )
    budget['ratio'] = round(1 - density, 12)
    return budget


def is_searched(budget: Mapping) -> bool:
    """Whether a budget block is of a type that looks for its ratio."""
    return getattr(BUDGETS.module_dict.get(str(budget.get('type'))), 'searched', False)


class Pruner:
    """What both pruners have in common: the blocks that don't depend on what is removed.

    Args:
        budget: What is limited, and the ratio: the fraction REMOVED.
        schedule: The target of each round.
        include: Regular expressions; at least one must match a name from its start.
        exclude: None of these may match.
        calibration: See :class:`CalibrationSettings`.
        recovery: See :class:`RecoverySettings`.
        profile: See :class:`ProfileSettings`.
        name: Stem of the checkpoints' names; by default the config name's first word.
    """

    #: The budget's type where a config names none.
    default_budget = ''

    def __init__(
        self,
        budget: Mapping,
        schedule: Mapping,
        include: Sequence[str],
        exclude: Sequence[str],
        calibration: Mapping,
        recovery: Mapping,
        profile: Mapping,
        name: str | None,
    ):
        self.schedule: Schedule = build(SCHEDULES, schedule, 'prune_cfg.schedule')
        self.budget: Budget = self._budget(budget)
        self.include = patterns_of('prune_cfg.include', include)
        self.exclude = patterns_of('prune_cfg.exclude', exclude)
        self.calibration = read_settings(CalibrationSettings, calibration, 'prune_cfg.calibration')
        self.recovery = read_settings(RecoverySettings, recovery, 'prune_cfg.recovery')
        self.profile = read_settings(ProfileSettings, profile, 'prune_cfg.profile')
        self.rounds = self._rounds(calibration, recovery)
        if name is not None and not (
            isinstance(name, str) and re.fullmatch(r'[\w.-]{1,100}', name)
        ):
            raise UserError(
                f'prune_cfg.name is {name!r}; it must be a word to begin file names with'
            )
        self.name = name

    def _budget(self, budget: Mapping) -> Budget:
        """The budget block as a budget, with what the pruner and its schedule add."""
        if isinstance(budget, Mapping):
            budget = {'type': self.default_budget, **with_ratio(budget)}
            if is_searched(budget):
                self._check_searched(budget)
                budget['of'] = budget.get('of') or self.default_budget
            elif self.schedule.own_ratio is not None:
                budget.setdefault('ratio', self.schedule.own_ratio)
        return build(BUDGETS, budget, 'prune_cfg.budget')

    @property
    def limited(self) -> tuple[str, str]:
        """The key that says what is limited, and its value."""
        if self.budget.searched:
            return 'prune_cfg.budget.of', self.budget.of.quantity
        return 'prune_cfg.budget.type', self.budget.quantity

    def _check_searched(self, budget: Mapping) -> None:
        """Raise :class:`UserError` for what doesn't go with a budget that looks for its ratio."""
        kind = f'prune_cfg.budget.type {budget["type"]!r}, which looks for the ratio itself'
        if 'ratio' in budget:
            raise UserError(
                f'prune_cfg.budget.ratio={budget["ratio"]!r} (or --pruning-ratio) does not go with '
                f'{kind}; leave it out, or give low and high'
            )
        if self.in_rounds:
            raise UserError(
                f'prune_cfg.schedule.type {type(self.schedule).__name__!r} does not go with {kind}; '
                'take OneShot'
            )

    def _rounds(self, calibration: Mapping, recovery: Mapping) -> list[Round]:
        """What the schedule says, round by round."""
        try:
            ratios = self.schedule.ratios(self.budget.ratio)
        except UserError as error:
            raise UserError(f'prune_cfg.schedule.{error}') from error
        rounds = []
        for number, ratio in enumerate(ratios, 1):
            data, training = self.schedule.overrides(number)
            own = f'[{number - 1}]'
            rounds.append(
                Round(
                    number,
                    ratio,
                    read_settings(
                        CalibrationSettings,
                        {**calibration, **data},
                        f'prune_cfg.schedule.calibration{own}' if data else 'prune_cfg.calibration',
                    ),
                    read_settings(
                        RecoverySettings,
                        {**recovery, **training},
                        f'prune_cfg.schedule.recovery{own}' if training else 'prune_cfg.recovery',
                    ),
                    self.schedule.lr_decay ** (number - 1),
                )
            )
        return rounds

    def at(self, ratio: float) -> Self:
        """The same pruner with another ratio in its budget; its rounds stay as they are."""
        pruner = copy(self)
        pruner.budget = self.budget.at(ratio)
        return pruner

    @property
    def in_rounds(self) -> bool:
        """Whether pruning and training take turns, be it once."""
        return not isinstance(self.schedule, OneShot)

    def needs_loop(self) -> str | None:
        """The key that only an IterativePruneLoop can follow, with its value; None if there is none."""
        rewind = self.schedule.rewind
        return f'schedule.rewind={rewind!r}' if isinstance(rewind, int) else None

    def check_without_loop(self) -> None:
        """Raise :class:`UserError` for what needs an IterativePruneLoop, where there is none."""
        needs = self.needs_loop()
        if needs:
            raise UserError(
                f"prune_cfg.{needs} needs train_cfg=dict(type='IterativePruneLoop', ...) and "
                'tools/train.py; take those, or leave the key out'
            )

    @property
    def asked(self) -> dict[str, Any]:
        """Budget and ratio, as in the reports."""
        return {'budget': self.budget.quantity, 'ratio': self.budget.ratio}


def build_pruner(prune_cfg: Mapping) -> Pruner:
    """Build and check a whole ``prune_cfg``; without ``type`` it is a StructuredPruner."""
    return build(PRUNERS, {'type': 'StructuredPruner', **prune_cfg}, 'prune_cfg')
