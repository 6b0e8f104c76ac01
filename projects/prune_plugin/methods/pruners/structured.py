"""The pruner of whole units."""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from ...calibration.collect import collect, observable, within_memory
from ...calibration.loss import LossFunction, mmengine_loss
from ...calibration.statistics import GRADIENT_STATISTICS
from ...common.distributed import assert_ranks_agree, on_rank_0
from ...common.errors import UserError
from ...common.precision import scoring_precision
from ...common.progress import expect_more, step
from ...common.registry import (
    ALLOCATORS,
    COMPENSATIONS,
    CRITERIA,
    PENALTIES,
    PRUNERS,
    build,
    build_optional,
)
from ...common.timing import timed
from ...common.validation import at_least, check_number
from ...structure.prunable_weights import prunable_weights, select_weights
from ...structure.prune_state import PruneState
from ...structure.slimming import mask, slim
from ...structure.unit_group import UnitGroup, named_tensors
from ..budgets.base import BudgetResult
from ..compensation import Compensation
from ..constraint import Cost, counts, sizes
from ..criteria import Random
from ..criteria.base import checked
from ..rounding import checked_round_to
from ..sparsifiers import Magnitude
from .allocation import allocated, corrected_cost
from .base import Pruner
from .data_source import DataSource, DataUser
from .layer_depth import (
    check_range,
    depth_cost,
    find_blocks,
    in_range,
    without_emptied,
)
from .layer_progress import LayerProgress
from .plan import Pruned, ScoredUnits, UnitPlan
from .reconstructing import (
    built_reconstruction,
    changed_by,
    reconstructing,
    unit_masks,
    users_of,
)
from .rescored import Ranking, check_scores_given, ranked, refit, step_name, without_steps
from .rescoring import built_rescoring, nested_budget
from .sparsify import sparsify_by_weight
from .structured_checks import check_criterion, check_empty_layers, check_without_weights
from .unit_discovery import FoundUnits, as_call, built_finders, example_call, find_units
from .unit_selection import UnitSelection


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
        penalty: In an IterativePruneLoop, regularizes units that are scheduled for removal towards zero
            before they are removed; None: they are removed at once.
        fillback_rate: In an IterativePruneLoop, the fraction of the units that a group would lose which it
            keeps after all, in [0, 1) (Refill+).
        include: See :class:`Pruner`; matched against unit groups' names.
        exclude: See :class:`Pruner`.
        min_keep: Fewest units that a group keeps (for whole layers: that the model keeps).
        round_to: What is left of a group that loses units is a multiple of this; or a dict of such
            numbers by kind of unit. Kinds that aren't named then have 1.
        layer_start: First layer of which units may go; None: the model's first.
        layer_end: First layer after those; None: all to the end.
        remove_empty_layers: Remove whole pre-norm layers once all their units are gone, if that
            changes no output. Needs ``min_keep=0``.
        compensation: Makes up for what goes with the weights that stay; None: nothing.
        rescoring: Steps in which units are scored again, refitted and pruned so far, without training in
            between; see :class:`RescoringSettings`. None: scored once.
        reconstruction: Trains the pruned model, part by part, on the dense one's activations; None: not.
        weight_level: Whether a second checkpoint, ``<name>_pruned.pth``, is written for comparison: of
            the same ratio, but single weights, by their magnitude.
        calibration: See :class:`Pruner`.
        recovery: See :class:`Pruner`.
        profile: See :class:`Pruner`.
        name: See :class:`Pruner`.
        execution: See :class:`Pruner`.

    Raises:
        UserError: anything in the config that isn't valid; the message names the key.

    Example:
        >>> prune_cfg = dict(
        ...     type='StructuredPruner', criterion=dict(type='Taylor', order=1),
        ...     allocator=dict(type='Knapsack'), budget=dict(type='params', ratio=0.25))
    """

    default_budget = 'params'
    removes_units = True

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
        round_to: int | Mapping[str, int] | None = None,
        layer_start: int | None = None,
        layer_end: int | None = None,
        remove_empty_layers: bool = False,
        compensation: Mapping | None = None,
        rescoring: Mapping | None = None,
        reconstruction: Mapping | None = None,
        weight_level: bool = True,
        calibration: Mapping = {},  # noqa: B006
        recovery: Mapping = {},  # noqa: B006
        profile: Mapping = {},  # noqa: B006
        name: str | None = None,
        execution: Mapping = {},  # noqa: B006
    ):
        budget, rescoring, self.nested = nested_budget(budget, rescoring)
        super().__init__(
            budget, schedule, include, exclude, calibration, recovery, profile, name, execution
        )
        self.penalty = build_optional(PENALTIES, penalty, 'prune_cfg.penalty')
        check_number('prune_cfg.fillback_rate', fillback_rate, 0, 1, least=True)
        self.fillback_rate = float(fillback_rate)
        self.finders = built_finders(units)
        self.criterion = build(CRITERIA, criterion, 'prune_cfg.criterion')
        check_criterion(self)
        self.allocator = build(ALLOCATORS, allocator, 'prune_cfg.allocator')
        at_least('prune_cfg.min_keep', min_keep, 0)
        self.min_keep, self.round_to = min_keep, checked_round_to(round_to)
        check_range(layer_start, layer_end)
        self.layers = layer_start, layer_end
        check_empty_layers(remove_empty_layers, min_keep)
        self.remove_empty_layers = remove_empty_layers
        if not isinstance(weight_level, bool):
            raise UserError(f'prune_cfg.weight_level is {weight_level!r}; it must be True or False')
        self.weight_level = weight_level
        self.compensation: Compensation | None = build_optional(
            COMPENSATIONS, compensation, 'prune_cfg.compensation'
        )
        self.reconstruction = built_reconstruction(reconstruction, self.schedule)
        self.rescoring = built_rescoring(rescoring, self)

    @property
    def method(self) -> str:
        """See :attr:`Pruner.method`."""
        return type(self.criterion).__name__

    def at(self, ratio: float) -> Self:
        """See :meth:`Pruner.at`; units are scored again at the same ratios, as far as they are smaller."""
        pruner = super().at(ratio)
        if self.rescoring is not None:
            pruner.nested = ()
            pruner.given = {**pruner.given, 'rescoring': self.rescoring.at(ratio)}
        return pruner

    def needs_loop(self) -> str | None:
        """See :meth:`Pruner.needs_loop`."""
        if self.in_rounds:
            return f'schedule.type={type(self.schedule).__name__!r} with a StructuredPruner'
        if self.penalty is not None:
            return f'penalty.type={type(self.penalty).__name__!r}'
        return f'fillback_rate={self.fillback_rate}' if self.fillback_rate else None

    def data_users(self, scored: bool = False) -> list[DataUser]:
        """See :meth:`Pruner.data_users`."""
        users = []
        if self.criterion.needed and not scored:
            what = f'prune_cfg.criterion {type(self.criterion).__name__}'
            users.append(DataUser(what, 'use L1, L2 or Random'))
        if self.compensation is not None:
            what = f'prune_cfg.compensation {type(self.compensation).__name__}'
            users.append(DataUser(what, 'leave it out'))
        return users + users_of(self.reconstruction)

    def passes(self, scored: bool = False) -> dict[str, float]:
        """See :meth:`Pruner.passes`."""
        samples, passes = self.calibration.num_samples, {}
        if self.criterion.needed and not scored:
            backward = self.criterion.needed & GRADIENT_STATISTICS
            passes['calibrate'] = samples * (3.0 if backward else 1.0)
        if self.compensation is not None:
            passes['compensate'] = float(samples)
        return passes

    def without_weights(self, scored: bool) -> tuple[Pruner, str]:
        """See :meth:`Pruner.without_weights`: a criterion gives way to ``Random``."""
        check_without_weights(self)
        name = type(self.criterion).__name__
        pruner = copy(self)
        pruner.rescoring = None  # scores don't change on the way
        if scored or isinstance(self.criterion, Random):
            return pruner, name
        pruner.criterion = Random()
        return pruner, f'random, in the place of {name}, which reads weights or data'

    def find(self, model: nn.Module, example_inputs: Any = None) -> FoundUnits:
        """See :meth:`Pruner.find`."""
        example = partial(example_call, model, example_inputs, self.profile.input_shape)
        how = self.finders, self.include, self.exclude
        found = find_units(model, *how, example, example_inputs is not None)
        found.groups = in_range(found.groups, *self.layers)
        if self.remove_empty_layers:
            found.refused.update(find_blocks(model, found.groups)[1])
        return found

    def score(
        self,
        model: nn.Module,
        data: DataSource | None = None,
        table: list[Tensor] | None = None,
        loss: LossFunction = mmengine_loss,
        example_inputs: Any = None,
    ) -> ScoredUnits:
        """See :meth:`Pruner.score`."""
        check_scores_given(self, table is not None)
        seconds: dict[str, float] = {}
        with timed(seconds, 'discover'):
            found = self.find(model, example_inputs)
        scores = self.scores(model, found.groups, data, loss, seconds) if table is None else table
        example = None if example_inputs is None else as_call(model, example_inputs).example
        made = ScoredUnits(
            found.groups, scores, found.refused, seconds, proofs=found.proofs, example=example
        )
        if self.rescoring is not None:
            made.data, made.loss = data, loss
        return made

    def plan_from(self, model: nn.Module, scored: ScoredUnits) -> UnitPlan:
        """See :meth:`Pruner.plan_from`."""
        groups, seconds = scored.groups, dict(scored.seconds)
        ranking = ranked(self, model, scored, seconds)

        def chosen() -> tuple[list[Tensor], Tensor, BudgetResult]:
            kept = self.chosen(model, scored, ranking)
            assert scored.cost is not None
            dense, left = scored.cost.total(sizes(groups)), scored.cost.total(counts(kept))
            return kept, scored.cost.marginal(sizes(groups)), self.budget.achieved(dense, left)

        with timed(seconds, 'allocate'):
            kept, cost, result = on_rank_0(chosen)
            state = self.state_of(model, groups, kept)
            assert_ranks_agree(state.digest(), 'the units kept')
        digest = state.digest() if state.reduced else ''
        scored = scored if self.rescoring is None else without_steps(scored, ranking)
        return UnitPlan(digest, seconds, result, scored, state, cost)

    def chosen(self, model: nn.Module, scored: ScoredUnits, ranking: Ranking) -> list[Tensor]:
        """Kept units of every group, in a step or in the last; costs are counted the first time."""
        if scored.cost is None:
            scored.cost = corrected_cost(self, model, scored.groups, ranking.order, scored.example)
        return ranking.still_there(self.allocate(model, scored.groups, ranking.order, scored.cost))

    def scores(
        self,
        model: nn.Module,
        groups: list[UnitGroup],
        data: DataSource | None = None,
        loss: LossFunction = mmengine_loss,
        seconds: dict[str, float] | None = None,
    ) -> list[Tensor]:
        """The criterion's importance of every unit, one float64 vector per group.

        Args:
            model: As for :meth:`score`, like ``data`` and ``loss``.
            groups: Its unit groups.
            seconds: Where to add the time that the steps take.

        Raises:
            UserError: no data for a criterion that needs some.
        """
        seconds = {} if seconds is None else seconds
        self.criterion.check(groups)
        # Criteria written for earlier versions know of no ratio.
        score = self.criterion.scores
        if self.criterion.reads_ratio:
            score = partial(score, ratio=self.budget.ratio)
        kinds = self.criterion.needed
        if not kinds:
            seconds.setdefault('calibrate', 0.0)
            with timed(seconds, 'score'):
                return checked(score(groups, named_tensors(model)), self.criterion)
        if self.calibration.loss_weights and loss is mmengine_loss:
            loss = partial(mmengine_loss, weights=self.calibration.loss_weights)
        with step('read calibration data'), timed(seconds, 'calibrate'):
            batches = self.batches(data, self.data_users()[0])
        scores: list[Tensor] = []
        # All groups are observable in every pass, so that all passes compute the same.
        with scoring_precision(model, self.calibration.precision), observable(model, groups):
            parts = within_memory(model, groups, kinds, self.calibration.gradient_memory)
            for name in ('calibrate', 'score'):
                expect_more(name, len(parts) - 1)
            for part in parts:
                with timed(seconds, 'calibrate'):
                    statistics = collect(model, part, kinds, batches, loss)
                with timed(seconds, 'score'):
                    scores += score(part, named_tensors(model), statistics)
                del statistics  # before the next part's
        return checked(scores, self.criterion)

    def apply(
        self,
        model: nn.Module,
        plan: UnitPlan,
        data: DataSource | None = None,
        loss: LossFunction = mmengine_loss,
        seconds: dict[str, float] | None = None,
        progress: LayerProgress | None = None,
        compensate: bool = True,
    ) -> Pruned:
        """See :meth:`Pruner.apply`."""
        seconds = seconds if seconds is not None else {}
        how = self.reconstruction if compensate else None
        if progress and self.rescoring is not None:
            progress = progress.below(step_name(plan.state))
        batches = partial(self.last_batches, data)
        names = changed_by(model, plan.state) if how else ()
        with reconstructing(how, model, names, batches, loss, seconds, progress) as train:
            if self.compensation is not None and compensate:
                with timed(seconds, 'compensate'):
                    kept = progress if self.rescoring is not None else None
                    refit(self.compensation, model, plan.state, batches, loss, kept)
            if how:
                train(unit_masks(mask(model, plan.state), plan.state))
        with timed(seconds, 'slim'):
            return Pruned(slim(model, plan.state), plan.state)

    def comparison(self, model: nn.Module) -> Pruned | None:
        """See :meth:`Pruner.comparison`: single weights, by magnitude, layer by layer.

        What the pruner's patterns protect stays whole here too.
        """
        if not self.weight_level:
            return None
        weights = select_weights(prunable_weights(model), self.include, self.exclude)
        ratios = dict.fromkeys(weights, self.budget.ratio)
        return Pruned(model, masks=sparsify_by_weight(weights, Magnitude(), ratios))

    def select(self, model: nn.Module) -> UnitSelection:
        """See :meth:`Pruner.select`."""
        return UnitSelection(self, model)

    def timing(self, example: Any) -> dict[str, Any]:
        """What budgets are told of how to run and time a model."""
        return {**vars(self.profile), 'round_to': self.round_to, 'example': example}

    def cost(self, model: nn.Module, groups: list[UnitGroup], example: Any = None) -> Cost:
        """What the budget limits, as a function of the units kept; ``example`` as in a scored plan."""
        cost_of = partial(self.budget.cost, model, profile=self.timing(example))
        if self.remove_empty_layers and self.budget.counts_layers:
            return depth_cost(model, groups, cost_of)
        return cost_of(groups)

    def state_of(self, model: nn.Module, groups: list[UnitGroup], kept: list[Tensor]) -> PruneState:
        """The units kept as a state, with the layers that are left without any."""
        units = {g.name: k for g, k in zip(groups, kept, strict=True)}
        state = PruneState({g.name: g for g in groups}, units, self.asked)
        return without_emptied(model, groups, state) if self.remove_empty_layers else state

    def allocate(
        self,
        model: nn.Module,
        groups: list[UnitGroup],
        scores: list[Tensor],
        cost: Cost | None = None,
    ) -> list[Tensor]:
        """Kept units of every group: those with the highest scores, as many as the allocator says.

        Args:
            model: The model as given.
            groups: Its unit groups.
            scores: Importance of their units.
            cost: What they cost; None: :meth:`cost`.
        """
        cost = self.cost(model, groups) if cost is None else cost
        return allocated(self, model, groups, scores, cost)
