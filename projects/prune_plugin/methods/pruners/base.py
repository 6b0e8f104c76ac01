"""What both pruners have in common."""

import re
from collections.abc import Mapping, Sequence
from copy import copy
from inspect import signature
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...calibration.data import CalibrationData, as_calibration_data
from ...calibration.loss import LossFunction, mmengine_loss
from ...calibration.settings import CalibrationSettings
from ...common.errors import UserError
from ...common.json_csv import plain
from ...common.model_argument import check_model
from ...common.patterns import patterns_of, some_patterns
from ...common.registry import BUDGETS, SCHEDULES, build
from ...common.settings import read_settings
from ...evaluation.settings import ProfileSettings
from ...structure.unit_group import UnitGroup
from ...training.settings import RecoverySettings
from ..budgets import Budget, MetricBudget
from ..penalties import Penalty
from ..reconstruction import Reconstruction
from ..rounding import RoundTo
from ..schedules import OneShot, Round, Schedule
from .budget_block import check_searched, is_searched, with_ratio
from .data_source import DataSource, DataUser
from .execution import ExecutionSettings
from .layer_progress import LayerProgress
from .plan import Plan, Pruned, ScoredUnits
from .rescoring import RescoringSettings
from .selection import Selection
from .unit_discovery import FoundUnits


class Pruner:
    """Base of the pruners: ``check``, ``score``, ``plan`` and ``apply``.

    It has the blocks of the config that don't depend on what is removed.

    Args:
        budget: What is limited, and the ratio: the fraction REMOVED.
        schedule: The target of each round.
        include: Regular expressions; at least one must match a name from its start.
        exclude: None of these may match.
        calibration: See :class:`CalibrationSettings`.
        recovery: See :class:`RecoverySettings`.
        profile: See :class:`ProfileSettings`.
        name: Stem of the checkpoints' names; by default the config name's first word.
        execution: See :class:`ExecutionSettings`.
    """

    #: The budget's type where a config names none.
    default_budget = ''
    #: Whether whole units are removed, so that shapes change; else single weights become zero.
    removes_units = False
    #: Fewest units that a group keeps, and of what the number of kept units is a multiple.
    min_keep: int = 0
    round_to: RoundTo = 1
    #: Trains the pruned model, part by part, on the dense one's activations; None: not.
    reconstruction: Reconstruction | None = None
    #: In which steps units are scored again without training; None: they are scored once.
    rescoring: RescoringSettings | None = None
    #: Ratios of the models that one run makes (``budget.ratios``); none: it makes one.
    nested: Sequence[float] = ()
    #: Regularizes units that are scheduled for removal; None: what is chosen is removed at once.
    penalty: Penalty | None = None
    #: The arguments that it was made from, and its registered ``type``; see :meth:`to_dict`.
    given: dict[str, Any]

    def __new__(cls, *args, **kwargs):
        """Keep the arguments as they are given."""
        pruner = super().__new__(cls)
        names = list(signature(cls.__init__).parameters)[1:]
        pruner.given = {'type': cls.__name__, **dict(zip(names, args, strict=False)), **kwargs}
        return pruner

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
        execution: Mapping = {},  # noqa: B006  read, never changed
    ):
        self.schedule: Schedule = build(SCHEDULES, schedule, 'prune_cfg.schedule')
        self.budget: Budget = self._budget(budget)
        self.include = some_patterns('prune_cfg.include', include)
        self.exclude = patterns_of('prune_cfg.exclude', exclude)
        self.calibration = read_settings(CalibrationSettings, calibration, 'prune_cfg.calibration')
        self.recovery = read_settings(RecoverySettings, recovery, 'prune_cfg.recovery')
        self.profile = read_settings(ProfileSettings, profile, 'prune_cfg.profile')
        self.execution = read_settings(ExecutionSettings, execution, 'prune_cfg.execution')
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
                check_searched(budget, type(self.schedule).__name__ if self.in_rounds else None)
                budget['of'] = budget.get('of') or self.default_budget
            elif self.schedule.own_ratio is not None:
                budget.setdefault('ratio', self.schedule.own_ratio)
        return build(BUDGETS, budget, 'prune_cfg.budget')

    @property
    def searched(self) -> MetricBudget | None:
        """The budget, if it searches for its ratio."""
        return self.budget if isinstance(self.budget, MetricBudget) else None

    @property
    def limited(self) -> tuple[str, str]:
        """The key that says what is limited, and its value."""
        if self.searched:
            return 'prune_cfg.budget.of', self.searched.of.quantity
        return 'prune_cfg.budget.type', self.budget.quantity

    def _rounds(self, calibration: Mapping, recovery: Mapping) -> list[Round]:
        """What the schedule says, round by round."""
        try:
            # A ratio that is searched for isn't known yet.
            ratios = self.schedule.ratios(self.budget.ratio or 0.0)
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
        block = self.given.get('budget', {})
        if self.searched:
            block = block.get('of') or self.default_budget
            block = {'type': block} if isinstance(block, str) else block
        block = {key: value for key, value in block.items() if key not in ('density', 'ratios')}
        pruner.given = {**self.given, 'budget': {**block, 'ratio': ratio}}
        return pruner

    def to_dict(self) -> dict[str, Any]:
        """The ``prune_cfg`` that gives this pruner again, as plain data: also where :meth:`at` or a tool's
        flag has changed the ratio."""
        return plain(self.given)

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
        """What is asked of the budget, as in the reports."""
        return self.budget.asked

    @property
    def method(self) -> str:
        """The name of the method that says what is removed: a criterion, or a sparsifier."""
        raise NotImplementedError

    def discover(
        self, model: nn.Module, example_inputs: Any = None
    ) -> tuple[list[UnitGroup], dict[str, str]]:
        """The unit groups of a model, and ``{module: reason}`` for modules that can't be pruned.

        Args:
            model: The model.
            example_inputs: See :meth:`plan`.
        """
        found = self.find(model, example_inputs)
        return found.groups, found.refused

    def find(self, model: nn.Module, example_inputs: Any = None) -> FoundUnits:
        """The units of a model in the layers asked for, and how each group was found."""
        check_model(model)
        return FoundUnits()

    def floors(self, groups: list[UnitGroup], scores: list[Tensor]) -> Tensor:
        """Fewest units that each group keeps.

        Args:
            groups: From :meth:`discover`.
            scores: Importance of their units.
        """
        return torch.zeros(len(groups), dtype=torch.long)

    @property
    def layer_by_layer(self) -> bool:
        """Whether finished layers of a killed pruning can be used again."""
        return self.reconstruction is not None or self.rescoring is not None

    def data_users(self, scored: bool = False) -> list[DataUser]:
        """The methods that need calibration data.

        Args:
            scored: Whether scores are given, so that none are computed.
        """
        raise NotImplementedError

    def passes(self, scored: bool = False) -> dict[str, float]:
        """Forward passes of one sample that steps make, by their name; a backward pass counts as two.

        Args:
            scored: See :meth:`data_users`.
        """
        step = 'sparsify' if self.layer_by_layer else 'calibrate'
        return {step: float(self.calibration.num_samples)} if self.data_users(scored) else {}

    def batches(self, data: DataSource | None, user: DataUser) -> CalibrationData:
        """The calibration batches for one of :meth:`data_users`.

        Raises:
            UserError: there are none, or they are something else.
        """
        if data is None:
            raise UserError(
                f'{user.what} needs calibration data; give a train_dataloader, or {user.instead}'
            )
        given = data(self.calibration) if callable(data) else data
        return as_calibration_data(given, self.calibration.seed)

    def last_batches(self, data: DataSource | None) -> CalibrationData:
        """The calibration batches for the last of :meth:`data_users`."""
        return self.batches(data, self.data_users()[-1])

    def check(
        self, model: nn.Module, data: DataSource | None = None, loss: LossFunction = mmengine_loss
    ) -> None:
        """Raise :class:`UserError` for what the other steps would refuse, as far as it is quickly known.

        Args:
            model: The model; left as it is.
            data: Gives calibration batches, for methods that need them.
            loss: Gives the loss of the model on a batch.
        """
        check_model(model)

    def score(
        self,
        model: nn.Module,
        data: DataSource | None = None,
        table: list[Tensor] | None = None,
        loss: LossFunction = mmengine_loss,
        example_inputs: Any = None,
    ) -> ScoredUnits:
        """Find out what plans for all ratios share; the model isn't changed.

        Args:
            model: The model; meta tensors will do for criteria that don't read weights.
            data: Gives calibration batches, for methods that need them.
            table: Scores from an earlier run instead of computing them, one vector per group.
            loss: Gives the loss of the model on a batch.
            example_inputs: See :meth:`plan`.

        Raises:
            UserError: nothing can be pruned, or there is no data.
        """
        raise NotImplementedError

    def plan(
        self,
        model: nn.Module,
        data: DataSource | None = None,
        table: list[Tensor] | None = None,
        loss: LossFunction = mmengine_loss,
        example_inputs: Any = None,
    ) -> Plan:
        """:meth:`score`, then :meth:`plan_from`; the model isn't changed. Arguments as there, and:

        Args:
            example_inputs: What the model can be called with, for units that no layout knows: a tensor, a
                tuple of positional arguments or a dict of keyword arguments. None: the model's
                ``dummy_inputs``, or zeros of ``profile.input_shape`` or of the size in timm's
                ``pretrained_cfg``; without any, only units of known classes are found.
        """
        self.check_without_loop()
        scored = self.score(model, data, table, loss, example_inputs)
        return self.plan_from(model, scored)

    def plan_from(self, model: nn.Module, scored: ScoredUnits) -> Plan:
        """Decide what is removed by this pruner's budget; the model isn't changed.

        Args:
            model: The model that was scored.
            scored: From :meth:`score`, of a pruner that differs in its ratio alone.

        Raises:
            UserError: a budget that the floors don't allow.
        """
        raise NotImplementedError

    def apply(
        self,
        model: nn.Module,
        plan: Any,
        data: DataSource | None = None,
        loss: LossFunction = mmengine_loss,
        seconds: dict[str, float] | None = None,
        progress: LayerProgress | None = None,
        compensate: bool = True,
    ) -> Pruned:
        """Prune a model, in place.

        Args:
            model: The model that the plan was made for, or a copy.
            plan: From :meth:`plan_from`.
            data: Gives calibration batches, for methods that need them.
            loss: Gives the loss of the model on a batch.
            seconds: Where to add the time of each step.
            progress: Where finished layers are kept, so that a killed run can go on.
            compensate: Whether a ``compensation`` in the config is applied.

        Raises:
            UserError: no data for a method that needs some.
        """
        raise NotImplementedError

    def comparison(self, model: nn.Module) -> Pruned | None:
        """A second model of the same ratio to compare with, made in place from the dense one; or None."""
        check_model(model)
        return None

    def select(self, model: nn.Module) -> Selection:
        """What of a model is kept from one round of iterative pruning to the next: everything, at first.

        Raises:
            UserError: something that can't be masked while training.
        """
        raise NotImplementedError

    def without_weights(self, scored: bool) -> tuple['Pruner', str]:
        """The pruner for a model on the meta device, and where its scores come from.

        Args:
            scored: Whether scores are given.

        Raises:
            UserError: what is asked for needs weights, data or a clock.
        """
        raise UserError(
            f'--meta plans by shapes, which a {type(self).__name__} does not change; '
            'take a StructuredPruner'
        )
