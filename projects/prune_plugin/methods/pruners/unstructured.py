"""The pruner of single weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...calibration.data import CalibrationData
from ...calibration.loss import mmengine_loss
from ...common.errors import UserError
from ...common.eval_mode import evaluation_mode
from ...common.patterns import check_matches, matches_within, patterns_of
from ...common.random_state import kept_random_state
from ...common.registry import PRUNERS, SPARSIFIERS, build
from ...common.validation import checked_ratio
from ...structure.prunable_weights import (
    check_finite,
    check_still_gone,
    prunable_weights,
    select_weights,
)
from .base import DataFactory, Pruner, is_searched
from .sparsify import Progress, sparsify_by_weight, sparsify_from_inputs


@PRUNERS.register_module()
class WeightPruner(Pruner):
    """Sets single weights of linear and convolution layers to zero; shapes stay.

    Zeros make the model no faster by themselves.

    Args:
        sparsifier: The method.
        layer_ratios: Fractions to remove of single layers, by regular expressions on their names,
            instead of the budget's ratio, which the others keep.
        budget: ``dict(type='weights', ratio=R)``: the fraction of those weights to remove.
        schedule: See :class:`Pruner`.
        include: See :class:`Pruner`; matched against names of parameters and modules around them.
        exclude: See :class:`Pruner`.
        calibration: See :class:`Pruner`.
        recovery: See :class:`Pruner`.
        profile: See :class:`Pruner`.
        name: See :class:`Pruner`.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='Magnitude'),
        ...     budget=dict(type='weights', ratio=0.5))
    """

    default_budget = 'weights'

    def __init__(
        self,
        sparsifier: Mapping = {'type': 'Magnitude'},  # noqa: B006  read, never changed
        layer_ratios: Mapping = {},  # noqa: B006
        budget: Mapping = {'type': 'weights'},  # noqa: B006
        schedule: Mapping = {'type': 'OneShot'},  # noqa: B006
        include: Sequence[str] = ('.*',),
        exclude: Sequence[str] = (),
        calibration: Mapping = {},  # noqa: B006
        recovery: Mapping = {},  # noqa: B006
        profile: Mapping = {},  # noqa: B006
        name: str | None = None,
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
        super().__init__(budget, schedule, include, exclude, calibration, recovery, profile, name)
        key, quantity = self.limited
        if quantity != 'weights':
            raise UserError(f"{key} is {quantity!r}; a WeightPruner's is 'weights'")
        if not isinstance(layer_ratios, Mapping):
            raise UserError(f'prune_cfg.layer_ratios is {layer_ratios!r}; it must be a dict')
        if self.in_rounds and self.sparsifier.pattern:
            raise UserError(
                f'prune_cfg.schedule.type is {type(self.schedule).__name__!r}, but a pattern has one '
                'ratio; use OneShot'
            )
        if not self.budget.searched:
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
        for key, patterns in (('include', self.include), ('exclude', self.exclude)):
            check_matches(f'prune_cfg.{key}', patterns, weights, 'prunable weights', matches_within)
        chosen = select_weights(weights, self.include, self.exclude)
        if not chosen:
            raise UserError('prune_cfg.exclude leaves no weight to prune; remove a pattern')
        return chosen

    def ratios(self, names: Iterable[str], ratio: float) -> dict[str, float]:
        """The fraction to remove of each weight: of ``layer_ratios`` the first that matches.

        In rounds those approach their targets as ``ratio`` does the budget's.
        """
        so_far = ratio / self.budget.ratio if self.in_rounds else 1.0
        own = [(pattern, own * so_far) for pattern, own in self.layer_ratios.items()]
        names = list(names)
        check_matches(
            'prune_cfg.layer_ratios', self.layer_ratios, names, 'prunable weights', matches_within
        )
        return {
            name: next((r for pattern, r in own if matches_within(pattern, name)), ratio)
            for name in names
        }

    def check(
        self,
        model: nn.Module,
        data: DataFactory | None = None,
        loss: Callable[[nn.Module, Any], Tensor] = mmengine_loss,
    ) -> None:
        """Raise :class:`UserError` for what :meth:`sparsify` would refuse, before anything else is done.

        That includes data which the model can't run on: one sample is tried.

        Args:
            model: The model; left as it is.
            data: Gives calibration batches, for methods that read inputs.
            loss: Runs the model on a batch.
        """
        weights = self.chosen(model)
        self.sparsifier.check_widths(weights)
        check_finite(weights)
        self.ratios(weights, self.budget.ratio)
        if self.sparsifier.reads_inputs:
            with evaluation_mode(model), kept_random_state(), torch.no_grad():
                loss(model, self.batches(data).first_sample())

    def batches(self, data: DataFactory | None) -> CalibrationData:
        """The calibration batches of a method that reads inputs."""
        if data is None:
            raise UserError(
                f'prune_cfg.sparsifier {type(self.sparsifier).__name__} needs calibration data; '
                'give a train_dataloader, or use Magnitude'
            )
        return data(self.calibration)

    def sparsify(
        self,
        model: nn.Module,
        data: DataFactory | None = None,
        loss: Callable[[nn.Module, Any], Tensor] = mmengine_loss,
        ratio: float | None = None,
        progress: Progress | None = None,
        before: Mapping[str, Tensor] | None = None,
        seen: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Set weights to zero, in place; a method may change the others too.

        Args:
            model: The model.
            data: Gives calibration batches, for methods that read inputs.
            loss: Runs the model on a batch.
            ratio: Fraction to remove instead of the budget's.
            progress: Where finished layers are kept, so that a killed run can go on.
            before: Masks of an earlier round, by parameter name: what it removed stays removed.
            seen: Where a method that sees all layers in the model as it is keeps what it has seen: copies
                of one model, pruned at several ratios, share a dict, and the data runs once.

        Returns:
            Which weights stay: bool tensors by parameter name.

        Raises:
            UserError: a pattern matches nothing, the sparsifier refuses, or there is no data.
        """
        weights = self.chosen(model)
        self.sparsifier.check_widths(weights)
        check_finite(weights)
        ratios = self.ratios(weights, self.budget.ratio if ratio is None else ratio)
        if self.sparsifier.reads_inputs:
            masks = sparsify_from_inputs(
                model, self.sparsifier, ratios, self.batches(data), loss, progress, before, seen
            )
        else:
            masks = sparsify_by_weight(weights, self.sparsifier, ratios, before)
        if before is not None:
            check_still_gone(masks, before)
        return masks
