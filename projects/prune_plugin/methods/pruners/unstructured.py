"""The pruner of single weights."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from ...calibration.loss import LossFunction, guarded, mmengine_loss
from ...common.errors import UserError
from ...common.eval_mode import inference
from ...common.model_argument import check_model, check_values
from ...common.patterns import check_matches, matches_within, patterns_of
from ...common.registry import PRUNERS, SPARSIFIERS, build
from ...common.timing import timed
from ...common.validation import checked_ratio
from ...structure.prunable_weights import (
    check_finite,
    check_no_regrowth,
    prunable_weights,
    select_weights,
    stacked_weights,
)
from .base import Pruner
from .budget_block import is_searched
from .data_source import DataSource, DataUser
from .layer_progress import LayerProgress
from .plan import Pruned, ScoredUnits, WeightPlan
from .reconstructing import built_reconstruction, reconstructing, users_of
from .sparsify import SparsifierRun, sparsify_by_weight, with_zeros
from .weight_selection import WeightSelection


@PRUNERS.register_module()
class WeightPruner(Pruner):
    """Sets single weights of linear and convolution layers to zero; shapes stay.

    Zeros make the model no faster by themselves.

    Args:
        sparsifier: The method.
        layer_ratios: Fractions to remove of single layers, by regular expressions on their names,
            instead of the budget's ratio, which the others keep.
        reconstruction: See :class:`StructuredPruner`.
        budget: ``dict(type='weights', ratio=R)``: the fraction of those weights to remove.
        schedule: See :class:`Pruner`.
        include: See :class:`Pruner`; matched against names of parameters and modules around them.
        exclude: See :class:`Pruner`.
        calibration: See :class:`Pruner`.
        recovery: See :class:`Pruner`.
        profile: See :class:`Pruner`.
        name: See :class:`Pruner`.
        execution: See :class:`Pruner`.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='Magnitude'),
        ...     budget=dict(type='weights', ratio=0.5))
    """

    default_budget = 'weights'

    @property
    def method(self) -> str:
        """See :attr:`Pruner.method`."""
        return type(self.sparsifier).__name__

    @property
    def layer_by_layer(self) -> bool:
        """See :class:`Pruner`."""
        return super().layer_by_layer or (
            self.sparsifier.reads_inputs and self.sparsifier.sequential
        )

    def __init__(
        self,
        sparsifier: Mapping = {'type': 'Magnitude'},  # noqa: B006  read, never changed
        layer_ratios: Mapping = {},  # noqa: B006
        reconstruction: Mapping | None = None,
        budget: Mapping = {'type': 'weights'},  # noqa: B006
        schedule: Mapping = {'type': 'OneShot'},  # noqa: B006
        include: Sequence[str] = ('.*',),
        exclude: Sequence[str] = (),
        calibration: Mapping = {},  # noqa: B006
        recovery: Mapping = {},  # noqa: B006
        profile: Mapping = {},  # noqa: B006
        name: str | None = None,
        execution: Mapping = {},  # noqa: B006
    ):
        self.sparsifier = build(SPARSIFIERS, sparsifier, 'prune_cfg.sparsifier')
        if isinstance(budget, Mapping) and not {'ratio', 'density', 'sparsity'} & budget.keys():
            own = self.sparsifier.own_ratio
            if own is not None and is_searched(budget):
                raise UserError(
                    f'prune_cfg.budget.type {budget["type"]!r} looks for a ratio, but a pattern has one '
                    'ratio; leave prune_cfg.sparsifier.pattern out'
                )
            budget = budget if own is None else {**budget, 'ratio': own}
        super().__init__(
            budget, schedule, include, exclude, calibration, recovery, profile, name, execution
        )
        key, quantity = self.limited
        if quantity != 'weights':
            raise UserError(f"{key} is {quantity!r}; a WeightPruner's is 'weights'")
        self.reconstruction = built_reconstruction(reconstruction, self.schedule)
        if not isinstance(layer_ratios, Mapping):
            raise UserError(f'prune_cfg.layer_ratios is {layer_ratios!r}; it must be a dict')
        if self.in_rounds and self.sparsifier.pattern:
            raise UserError(
                f'prune_cfg.schedule.type is {type(self.schedule).__name__!r}, but a pattern has one '
                'ratio; use OneShot'
            )
        if not self.searched:
            self.sparsifier.check_ratio(self.budget.ratio)
        patterns_of('prune_cfg.layer_ratios', list(layer_ratios))
        self.layer_ratios = {}
        for pattern, ratio in layer_ratios.items():
            key = f'prune_cfg.layer_ratios[{pattern!r}]'
            self.layer_ratios[pattern] = checked_ratio(ratio, key)
            self.sparsifier.check_ratio(ratio, key)

    def chosen(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The weights to prune, by name.

        Raises:
            UserError: a pattern matches nothing, or nothing is left.
        """
        weights = prunable_weights(model)
        if not (self.sparsifier.reads_inputs or self.sparsifier.pattern):
            weights |= stacked_weights(model)
        if not weights:
            raise UserError(
                f'the model has no weights to prune: {type(model).__name__} has no linear, convolution or '
                'attention layer'
            )
        for key, patterns in (('include', self.include), ('exclude', self.exclude)):
            check_matches(f'prune_cfg.{key}', patterns, weights, 'prunable weights', matches_within)
        chosen = select_weights(weights, self.include, self.exclude)
        if not chosen:
            raise UserError('prune_cfg.exclude leaves no weight to prune; remove a pattern')
        return chosen

    def left_out(self, model: nn.Module) -> dict[str, str]:
        """Weights that multiply and that the method doesn't touch, by name with the reason.

        A warning says how much of the model they are.
        """
        if not (self.sparsifier.reads_inputs or self.sparsifier.pattern):
            return {}
        stacked = {n: w.numel() for n, w in stacked_weights(model).items()}
        if not stacked:
            return {}
        name = type(self.sparsifier).__name__
        why = (
            'what they read is not observed'
            if self.sparsifier.reads_inputs
            else 'they have no rows'
        )
        total = sum(stacked.values()) + sum(w.numel() for w in prunable_weights(model).values())
        share = sum(stacked.values()) / total
        first = ', '.join(list(stacked)[:2])
        print_log(
            f'{name} leaves out {len(stacked)} weights ({first}{", ..." * (len(stacked) > 2)}), '
            f'{100 * share:.1f} % of all that multiply: they are no layers of their own, so {why}; the '
            'ratio is of the rest. Magnitude without a pattern prunes them too',
            'current',
            logging.WARNING,
        )
        return dict.fromkeys(stacked, f'{name} leaves it out: {why}')

    def ratios(self, names: Iterable[str], ratio: float) -> dict[str, float]:
        """The fraction to remove of each weight: of ``layer_ratios`` the first that matches.

        In rounds those approach their targets as ``ratio`` does the budget's.
        """
        so_far = ratio / self.budget.known_ratio if self.in_rounds else 1.0
        own = [(pattern, own * so_far) for pattern, own in self.layer_ratios.items()]
        names = list(names)
        check_matches(
            'prune_cfg.layer_ratios', self.layer_ratios, names, 'prunable weights', matches_within
        )
        return {
            name: next((r for pattern, r in own if matches_within(pattern, name)), ratio)
            for name in names
        }

    def data_users(self, scored: bool = False) -> list[DataUser]:
        """See :meth:`Pruner.data_users`."""
        what = f'prune_cfg.sparsifier {type(self.sparsifier).__name__}'
        users = [DataUser(what, 'use Magnitude')] if self.sparsifier.reads_inputs else []
        return users + users_of(self.reconstruction)

    def check(
        self, model: nn.Module, data: DataSource | None = None, loss: LossFunction = mmengine_loss
    ) -> None:
        """See :meth:`Pruner.check`. Where data is read, one sample is tried on the model."""
        weights = self.chosen(model)
        self.sparsifier.check_widths(weights)
        check_finite(weights)
        self.ratios(weights, self.budget.ratio or 0.0)  # checks the patterns
        for user in self.data_users():
            with inference(model):
                guarded(loss)(model, self.batches(data, user).first_sample())

    def score(
        self,
        model: nn.Module,
        data: DataSource | None = None,
        table: list[Tensor] | None = None,
        loss: LossFunction = mmengine_loss,
        example_inputs: Any = None,
    ) -> ScoredUnits:
        """See :meth:`Pruner.score`; a sequential sparsifier observes its inputs only while it prunes."""
        weights, scored = self.chosen(model), ScoredUnits(refused=self.left_out(model))
        if self.sparsifier.reads_inputs and not self.sparsifier.sequential:
            run = self.run(model, weights, data, loss)
            with timed(scored.seconds, 'calibrate'):
                scored.inputs = run.observe()
        return scored

    def plan_from(self, model: nn.Module, scored: ScoredUnits) -> WeightPlan:
        """See :meth:`Pruner.plan_from`."""
        ratio, weights = self.budget.known_ratio, self.chosen(model)
        ratios = self.ratios(weights, ratio)
        removed = sum(round(ratios[name] * weight.numel()) for name, weight in weights.items())
        total = sum(weight.numel() for weight in weights.values())
        return WeightPlan(
            digest=f'{ratio!r} of {self.budget.quantity}',
            seconds=dict(scored.seconds),
            result=self.budget.achieved(total, total - removed),
            scored=scored,
            state=None,
            ratios=ratios,
        )

    def apply(
        self,
        model: nn.Module,
        plan: WeightPlan,
        data: DataSource | None = None,
        loss: LossFunction = mmengine_loss,
        seconds: dict[str, float] | None = None,
        progress: LayerProgress | None = None,
        compensate: bool = True,
    ) -> Pruned:
        """See :meth:`Pruner.apply`."""
        seconds = {} if seconds is None else seconds
        how = self.reconstruction if compensate else None
        batches = partial(self.last_batches, data)
        with reconstructing(how, model, plan.ratios, batches, loss, seconds, progress) as train:
            with timed(seconds, 'sparsify'):
                masks = self.set_to_zero(
                    model, plan.ratios, data, loss, progress, None, plan.scored
                )
            train(masks)
        total = sum(mask.numel() for mask in masks.values())
        kept = sum(int(mask.sum()) for mask in masks.values())
        return Pruned(model, masks=masks, result=self.budget.achieved(total, kept))

    def select(self, model: nn.Module) -> WeightSelection:
        """See :meth:`Pruner.select`."""
        return WeightSelection(self, model)

    def sparsify(
        self,
        model: nn.Module,
        data: DataSource | None = None,
        loss: LossFunction = mmengine_loss,
        ratio: float | None = None,
        progress: LayerProgress | None = None,
        previous: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Set weights to zero in one step, in place; a method may change the others too.

        Args:
            model: The model.
            data: Gives calibration batches, for methods that read inputs.
            loss: Gives the loss of the model on a batch.
            ratio: Fraction to remove instead of the budget's.
            progress: Where finished layers are kept, so that a killed run can go on.
            previous: Masks of an earlier round, by parameter name: what it removed stays removed.

        Returns:
            Which weights are kept: bool tensors by parameter name.

        Raises:
            UserError: a pattern matches nothing, the sparsifier refuses, or there is no data.
        """
        ratios = self.ratios(
            self.chosen(model), self.budget.known_ratio if ratio is None else ratio
        )
        masks = self.set_to_zero(model, ratios, data, loss, progress, previous)
        if previous is not None:
            check_no_regrowth(masks, previous)
        return masks

    def set_to_zero(
        self,
        model: nn.Module,
        ratios: Mapping[str, float],
        data: DataSource | None,
        loss: LossFunction,
        progress: LayerProgress | None = None,
        previous: Mapping[str, Tensor] | None = None,
        scored: ScoredUnits | None = None,
    ) -> dict[str, Tensor]:
        """Remove a fraction of each weight, in place; arguments as for :meth:`sparsify`.

        What is zero already stays so, whatever the ratio (:func:`.sparsify.with_zeros`).

        Args:
            ratios: The fractions, by name.
            scored: From :meth:`score` of an equal model.
        """
        check_model(model)
        weights = {name: model.get_parameter(name) for name in ratios}
        check_values(weights, 'a WeightPruner changes it', instead='load the weights first')
        self.sparsifier.check_widths(weights)
        check_finite(weights)
        previous = with_zeros(weights, previous)
        if not self.sparsifier.reads_inputs:
            masks = sparsify_by_weight(weights, self.sparsifier, ratios, previous)
        else:
            run = self.run(model, weights, data, loss)
            masks = run.prune(ratios, scored.inputs if scored else None, progress, previous)
        if previous is not None:
            for name, keep in masks.items():
                keep &= previous[name].to(keep.device)
                weights[name].data.mul_(keep)
        return masks

    def run(
        self,
        model: nn.Module,
        names: Iterable[str],
        data: DataSource | None,
        loss: LossFunction,
    ) -> SparsifierRun:
        """The model with the calibration batches, for a sparsifier that reads inputs."""
        batches = self.batches(data, self.data_users()[0])
        return SparsifierRun(model, self.sparsifier, names, batches, loss)
