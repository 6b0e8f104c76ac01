"""The pruner of whole units."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...calibration.collect import collect, observable, within_memory
from ...calibration.loss import mmengine_loss
from ...common.distributed import assert_ranks_agree, on_rank_0
from ...common.errors import UserError
from ...common.registry import ALLOCATORS, COMPENSATIONS, CRITERIA, PENALTIES, PRUNERS, UNITS, build
from ...common.timing import timed
from ...common.validation import at_least, check_number
from ...structure.prune_state import PruneState
from ...structure.slimming import slim
from ...structure.unit_group import UnitGroup, named_tensors
from ...structure.units.finder import UnitFinder, discover
from ..budgets.base import BudgetResult
from ..compensation import Compensation
from ..constraint import Cost, sizes
from .base import DataFactory, Pruner
from .layer_depth import (
    DepthCost,
    check_range,
    emptied_layers,
    find_blocks,
    in_range,
    needed_blocks,
    with_layers,
)
from .plan import Plan, ScoredUnits

#: Statistics that depend on the loss.
GRADIENTS = frozenset(('gradients', 'squared_gradients', 'fisher'))


@PRUNERS.register_module()
class StructuredPruner(Pruner):
    """Removes whole units: heads, neurons, channels, layers.

    Args:
        units: Unit finders; by default every known kind that the model has.
        criterion: Gives the scores; higher is more important.
        allocator: Turns scores and costs into kept units.
        budget: See :class:`Pruner`.
        schedule: See :class:`Pruner`. Other than OneShot it takes ``train_cfg.type``
            ``IterativePruneLoop``.
        penalty: In an IterativePruneLoop, pulls the units that leave towards zero before they go; None:
            they go at once.
        fillback_rate: In an IterativePruneLoop, the share of what would go that stays (Refill+).
        include: See :class:`Pruner`; matched against unit groups' names.
        exclude: See :class:`Pruner`.
        min_keep: Fewest units that a group keeps (for whole layers: that the model keeps).
        round_to: What is left of a group that loses units is a multiple of this.
        layer_start: First layer of which units may go; None: the model's first.
        layer_end: First layer after those; None: all to the end.
        remove_empty_layers: Remove whole pre-norm layers once all their units are gone, if that
            changes no output. Needs ``min_keep=0``.
        compensation: Makes up for what goes with the weights that stay; None: nothing.
        weight_level: Whether a second checkpoint, ``<name>_pruned.pth``, is written for comparison: of
            the same ratio, but single weights, by their magnitude.
        calibration: See :class:`Pruner`.
        recovery: See :class:`Pruner`.
        profile: See :class:`Pruner`.
        name: See :class:`Pruner`.

    Raises:
        UserError: anything in the config that isn't valid; the message names the key.

    Example:
        >>> prune_cfg = dict(
        ...     type='StructuredPruner', criterion=dict(type='Taylor', order=1),
        ...     allocator=dict(type='Knapsack'), budget=dict(type='params', ratio=0.25))
    """

    default_budget = 'params'

    def __init__(
        self,
        units: Sequence[Mapping] | None = None,
        criterion: Mapping = {'type': 'L1'},  # noqa: B006  read, never changed
        allocator: Mapping = {'type': 'Knapsack'},  # noqa: B006
        budget: Mapping = {'type': 'params'},  # noqa: B006
        schedule: Mapping = {'type': 'OneShot'},  # noqa: B006
        penalty: Mapping | None = None,
        fillback_rate: float = 0.0,
        include: Sequence[str] = ('.*',),
        exclude: Sequence[str] = (),
        min_keep: int = 1,
        round_to: int | None = None,
        layer_start: int | None = None,
        layer_end: int | None = None,
        remove_empty_layers: bool = False,
        compensation: Mapping | None = None,
        weight_level: bool = True,
        calibration: Mapping = {},  # noqa: B006
        recovery: Mapping = {},  # noqa: B006
        profile: Mapping = {},  # noqa: B006
        name: str | None = None,
    ):
        super().__init__(budget, schedule, include, exclude, calibration, recovery, profile, name)
        self.penalty = penalty and build(PENALTIES, penalty, 'prune_cfg.penalty')
        check_number('prune_cfg.fillback_rate', fillback_rate, 0, 1, least=True)
        self.fillback_rate = float(fillback_rate)
        self.finders: list[UnitFinder] | None = None
        if units is not None:
            if isinstance(units, str | Mapping) or not isinstance(units, Sequence) or not units:
                raise UserError(f'prune_cfg.units is {units!r}; it must be a list of dicts')
            self.finders = [
                build(UNITS, unit, f'prune_cfg.units[{i}]') for i, unit in enumerate(units)
            ]
        self.criterion = build(CRITERIA, criterion, 'prune_cfg.criterion')
        if self.calibration.loss_weights and not self.criterion.statistics & GRADIENTS:
            raise UserError(
                f'prune_cfg.calibration.loss_weights does nothing for {type(self.criterion).__name__}, '
                'which reads no gradients; leave it out or take Taylor or Fisher'
            )
        key, quantity = self.limited
        if quantity == 'weights':
            raise UserError(
                f"{key} is {quantity!r}, which a StructuredPruner can't use; valid are params, flops, "
                'units, latency, metric'
            )
        if self.budget.searched and self.criterion.reads_ratio:
            raise UserError(
                f'prune_cfg.criterion {type(self.criterion).__name__} scores by the ratio, which '
                f'prune_cfg.budget.type {self.budget.quantity!r} has yet to find; take another'
            )
        self.allocator = build(ALLOCATORS, allocator, 'prune_cfg.allocator')
        at_least('prune_cfg.min_keep', min_keep, 0)
        round_to = 1 if round_to is None else round_to
        at_least('prune_cfg.round_to', round_to, 1)
        self.min_keep, self.round_to = min_keep, round_to
        check_range(layer_start, layer_end)
        self.layers = layer_start, layer_end
        if not isinstance(remove_empty_layers, bool):
            raise UserError(
                f'prune_cfg.remove_empty_layers is {remove_empty_layers!r}; it must be True or False'
            )
        if remove_empty_layers and min_keep:
            raise UserError(
                f'prune_cfg.remove_empty_layers needs min_keep=0, but it is {min_keep}, so no layer '
                'can be emptied'
            )
        self.remove_empty_layers = remove_empty_layers
        if not isinstance(weight_level, bool):
            raise UserError(f'prune_cfg.weight_level is {weight_level!r}; it must be True or False')
        self.weight_level = weight_level
        self.compensation: Compensation | None = None
        if compensation is not None:
            self.compensation = build(COMPENSATIONS, compensation, 'prune_cfg.compensation')

    def needs_loop(self) -> str | None:
        """See :meth:`Pruner.needs_loop`."""
        if self.in_rounds:
            return f'schedule.type={type(self.schedule).__name__!r} with a StructuredPruner'
        if self.penalty is not None:
            return f'penalty.type={type(self.penalty).__name__!r}'
        return f'fillback_rate={self.fillback_rate}' if self.fillback_rate else None

    def discover(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """The model's unit groups in the layers asked for, and what can't be cut."""
        groups, refused = self._discover(model)
        groups = in_range(groups, *self.layers)
        if self.remove_empty_layers:
            refused = {**refused, **find_blocks(model, groups)[1]}
        return groups, refused

    def _discover(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """In all layers; see :func:`discover`."""
        if self.finders is not None:
            return discover(model, self.finders, self.include, self.exclude)
        kinds = sorted(UNITS.module_dict.items())  # whatever was imported first
        candidates = [cls() for _, cls in kinds if cls.default]
        finders, reasons = [], {}
        for finder in candidates:
            groups, refused = finder.find(model)
            reasons.update(refused)
            finders += [finder] if groups else []
        if not finders:
            names = ', '.join(type(c).__name__ for c in candidates)
            why = ''.join(f'; {module}: {reason}' for module, reason in list(reasons.items())[:1])
            if any(isinstance(module, nn.Conv2d) for module in model.modules()):
                why += (
                    "; for convolutional nets try prune_cfg.units=[dict(type='CoupledChannels', "
                    'input_shape=(3, 224, 224))]'
                )
            raise UserError(f'the model has no units of the known kinds ({names}) to prune{why}')
        groups, _ = discover(model, finders, self.include, self.exclude)
        return groups, reasons

    def plan(
        self,
        model: nn.Module,
        data: DataFactory | None = None,
        table: list[Tensor] | None = None,
        loss: Callable[[nn.Module, Any], Tensor] = mmengine_loss,
    ) -> Plan:
        """Find, score and choose units; the model isn't changed.

        Args:
            model: The model; meta tensors will do for criteria that don't read weights.
            data: Gives calibration batches, for criteria that need them.
            table: Scores from an earlier run instead of the criterion, one vector per group.
            loss: Gives the loss for gradients.

        Raises:
            UserError: see :func:`discover`; no data for a criterion that needs some; a budget that
                the floors don't allow.
        """
        return self.plan_from(model, self.survey(model, data, table, loss))

    def survey(
        self,
        model: nn.Module,
        data: DataFactory | None = None,
        table: list[Tensor] | None = None,
        loss: Callable[[nn.Module, Any], Tensor] = mmengine_loss,
    ) -> ScoredUnits:
        """Find and score units: what plans for all ratios share. Arguments as for :meth:`plan`."""
        seconds: dict[str, float] = {}
        with timed(seconds, 'discover'):
            groups, refused = self.discover(model)
        scores = table if table is not None else self.scores(model, groups, data, loss, seconds)
        return ScoredUnits(groups, scores, refused, seconds)

    def plan_from(self, model: nn.Module, survey: ScoredUnits) -> Plan:
        """Choose units by this pruner's budget.

        Args:
            model: The model of the survey.
            survey: From :meth:`survey`, of a pruner that differs in its ratio alone.

        Raises:
            UserError: a budget that the floors don't allow.
        """
        groups, seconds = survey.groups, dict(survey.seconds)

        def chosen() -> tuple[list[Tensor], Tensor, BudgetResult]:
            if survey.cost is None:
                survey.cost = self.cost(model, groups)
            kept = self.allocate(model, groups, survey.importance, survey.cost)
            dense = survey.cost.total(sizes(groups))
            left = survey.cost.total(torch.tensor([len(units) for units in kept]))
            return kept, survey.cost.marginal(sizes(groups)), self.budget.achieved(dense, left)

        with timed(seconds, 'allocate'):
            kept, cost, result = on_rank_0(chosen)
            state = PruneState(
                {g.name: g for g in groups},
                {g.name: k for g, k in zip(groups, kept, strict=True)},
                self.asked,
            )
            if self.remove_empty_layers:
                for layer in emptied_layers(needed_blocks(model, groups), kept):
                    state.groups[layer.name] = layer
                    state.kept[layer.name] = torch.arange(0)
            assert_ranks_agree(state.digest(), 'the units kept')
        return Plan(groups, survey.importance, cost, state, survey.refused, seconds, result)

    def scores(
        self,
        model: nn.Module,
        groups: list[UnitGroup],
        data: DataFactory | None = None,
        loss: Callable[[nn.Module, Any], Tensor] = mmengine_loss,
        seconds: dict[str, float] | None = None,
    ) -> list[Tensor]:
        """The criterion's importance of every unit, one float64 vector per group.

        Args:
            model: As in :meth:`plan`.
            groups: Its unit groups.
            data: As in :meth:`plan`.
            loss: As in :meth:`plan`.
            seconds: Where to add the time that the steps take.

        Raises:
            UserError: no data for a criterion that needs some.
        """
        seconds = {} if seconds is None else seconds
        self.criterion.check(groups)
        self.criterion.ratio = self.budget.ratio
        kinds = self.criterion.statistics
        if not kinds:
            seconds.setdefault('calibrate', 0.0)
            with timed(seconds, 'score'):
                return self.criterion.scores(groups, named_tensors(model))
        if data is None:
            raise UserError(
                f'prune_cfg.criterion {type(self.criterion).__name__} needs calibration data; '
                'give a train_dataloader, or use L1, L2 or Random'
            )
        if self.calibration.loss_weights and loss is mmengine_loss:
            loss = partial(mmengine_loss, weights=self.calibration.loss_weights)
        with timed(seconds, 'calibrate'):
            batches = data(self.calibration)
        scores = []
        with observable(model, groups):  # all groups in every pass, so that they compute the same
            for part in within_memory(model, groups, kinds, self.calibration.gradient_memory):
                with timed(seconds, 'calibrate'):
                    statistics = collect(model, part, kinds, batches, loss)
                with timed(seconds, 'score'):
                    scores += self.criterion.scores(part, named_tensors(model), statistics)
                del statistics  # before the next part's
        return scores

    def slim(
        self,
        model: nn.Module,
        state: PruneState,
        data: DataFactory | None = None,
        loss: Callable[[nn.Module, Any], Tensor] = mmengine_loss,
        seconds: dict[str, float] | None = None,
    ) -> nn.Module:
        """Compensate for what goes, if the config says so, and cut the model; both in place.

        Args:
            model: The model that ``state`` was planned for.
            state: Which units stay.
            data: Gives calibration batches, for a compensation.
            loss: Runs the model on a batch.
            seconds: Where to add the time that the steps take.

        Raises:
            UserError: no data for a compensation.
        """
        seconds = {} if seconds is None else seconds
        if self.compensation is not None:
            if data is None:
                raise UserError(
                    f'prune_cfg.compensation {type(self.compensation).__name__} needs calibration '
                    'data; give a train_dataloader, or leave it out'
                )
            with timed(seconds, 'compensate'):
                self.compensation.apply(model, state, data(self.calibration), loss)
        with timed(seconds, 'slim'):
            return slim(model, state)

    def cost(self, model: nn.Module, groups: list[UnitGroup]) -> Cost:
        """What the budget limits, as a function of the units kept."""
        if not (self.remove_empty_layers and self.budget.counts_layers):
            return self.budget.cost(model, groups, vars(self.profile))
        blocks = needed_blocks(model, groups)
        extended, positions = with_layers(groups, blocks)
        full = self.budget.cost(model, extended, vars(self.profile))
        return DepthCost(full, len(groups), blocks, positions)

    def allocate(
        self,
        model: nn.Module,
        groups: list[UnitGroup],
        scores: list[Tensor],
        cost: Cost | None = None,
    ) -> list[Tensor]:
        """Kept units of every group; without ``cost``, what they cost is found anew."""
        self.allocator.look(groups, named_tensors(model), self.budget.ratio)
        return self.choose(groups, scores, self.cost(model, groups) if cost is None else cost)

    def choose(self, groups: list[UnitGroup], scores: list[Tensor], cost: Cost) -> list[Tensor]:
        """Kept units of every group: those with the highest scores, as many as the allocator says."""
        kept: list[Tensor] = [torch.arange(group.size) for group in groups]
        floors = self.floors(groups, scores)
        self.allocator.check(groups)
        for constraint in self.budget.constraints(groups, cost):
            members = constraint.groups
            own = [scores[g] for g in members]
            counts = self.allocator.allocate(own, constraint, floors[members], self.round_to)
            for g, score, count in zip(members, own, counts.tolist(), strict=True):
                order = score.sort(stable=True).indices
                kept[g] = order[len(order) - count :].sort().values
        return kept

    def floors(self, groups: list[UnitGroup], scores: list[Tensor]) -> Tensor:
        """Fewest units each group keeps: ``min_keep``, or what its modules need to run.

        Of whole layers, the ``min_keep`` best of the model stay.
        """
        floors = torch.tensor([max(min(self.min_keep, g.size), g.least) for g in groups])
        layers = [g for g, group in enumerate(groups) if group.kind == 'layer']
        floors[layers] = 0
        best = sorted(layers, key=lambda g: float(scores[g].sum()), reverse=True)[: self.min_keep]
        floors[best] = 1
        return floors
