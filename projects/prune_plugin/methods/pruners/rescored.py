"""Scoring again in steps: prune, refit and score what is left, without training in between.

Every step begins with the weights of the model as given: units that the steps so far remove go, and what
reads the others is refitted to the dense model's outputs. So errors of earlier refits don't add up, and a
step is known by the units that it leaves.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...calibration.data import CalibrationData
from ...calibration.loss import LossFunction
from ...common.distributed import assert_ranks_agree, on_rank_0
from ...common.errors import UserError
from ...common.timing import timed
from ...structure.prune_state import PruneState
from ...structure.slimming import mask
from ...structure.unit_group import UnitGroup
from ..compensation import Compensation
from .layer_progress import LayerProgress
from .plan import ScoredUnits
from .unit_selection import removed_first

#: Numbers of the files of a step.
REFIT, SCORES = 0, 1


@dataclass
class Ranking:
    """Units in the order in which they go: those removed before first.

    Attributes:
        importance: The last score that each unit had, one float64 vector per group.
        removed: Indices of the units removed before, per group; None: there are none.
    """

    importance: list[Tensor]
    removed: list[Tensor] | None = None

    @property
    def order(self) -> list[Tensor]:
        """Scores by which they go."""
        if self.removed is None:
            return self.importance
        return removed_first(self.importance, self.removed)

    def still_there(self, kept: list[Tensor]) -> list[Tensor]:
        """Units to keep without those removed before, per group."""
        if self.removed is None:
            return kept
        return [k[~torch.isin(k, r)] for k, r in zip(kept, self.removed, strict=True)]

    def after(self, state: PruneState, groups: list[UnitGroup], scores: list[Tensor]) -> 'Ranking':
        """The ranking after a step.

        Args:
            state: The units kept in it.
            groups: The groups, in the order of the scores.
            scores: Of the units in what the step has left.
        """
        removed = [state.removed(group.name) for group in groups]
        last = [
            new.index_copy(0, gone, old[gone])
            for new, old, gone in zip(scores, self.importance, removed, strict=True)
        ]
        return Ranking(last, removed)


def ranked(
    pruner: Any, model: nn.Module, scored: ScoredUnits, seconds: dict[str, float]
) -> Ranking:
    """Rank units by their scores, through all steps before the last if there are some.

    Args:
        pruner: A StructuredPruner.
        model: The model that was scored; copies of it are pruned.
        scored: Its scores; holds those of the steps from then on.
        seconds: Where to add the time of each step.

    Raises:
        UserError: the budget can't be met.
    """
    found, groups = Ranking(scored.importance), scored.groups
    before = pruner.rescoring.before(pruner.budget.known_ratio) if pruner.rescoring else []
    if before and not pruner.budget.tried:  # before anything takes long
        on_rank_0(lambda: pruner.allocate(model, groups, scored.importance))
    for number, ratio in enumerate(before, 1):
        at = pruner.at(ratio)
        with timed(seconds, 'allocate'):
            kept = on_rank_0(partial(at.chosen, model, scored, found))
            state = at.state_of(model, groups, kept)
            assert_ranks_agree(state.digest(), 'the units kept')
        print_log(
            f'step {number} of {len(before) + 1}: ratio {ratio:.4g}, scoring again', 'current'
        )
        scores = scores_after(pruner, model, scored, state, seconds)
        found = found.after(state, groups, scores)
    return found


def scores_after(
    pruner: Any, model: nn.Module, scored: ScoredUnits, state: PruneState, seconds: dict[str, float]
) -> list[Tensor]:
    """The scores of all units once some are removed and the others refitted; the model isn't changed.

    Args:
        pruner: As for :func:`ranked`, like ``model``, ``scored`` and ``seconds``.
        state: The units kept.
    """
    name = step_name(state)
    if name in scored.rescored or not state.reduced:
        return scored.rescored.get(name, scored.importance)
    progress = scored.progress.below(name) if scored.progress else None
    saved = progress.load(SCORES) if progress else None
    if saved is not None:
        scores = [saved[group.name]['weight'] for group in scored.groups]
    else:
        copy = deepcopy(model)
        if pruner.compensation is not None:
            with timed(seconds, 'compensate'):
                batches = partial(pruner.last_batches, scored.data)
                refit(pruner.compensation, copy, state, batches, scored.loss, progress)
        scores = pruner.scores(mask(copy, state), scored.groups, scored.data, scored.loss, seconds)
        if progress:
            found = zip(scored.groups, scores, strict=True)
            progress.save(SCORES, {g.name: (score, state.kept[g.name]) for g, score in found})
    scored.rescored[name] = scores
    return scores


def step_name(state: PruneState) -> str:
    """What a step's files are kept under: that of the units that it leaves."""
    return f'step_{state.digest()[:16]}'


def refit(
    compensation: Compensation,
    model: nn.Module,
    state: PruneState,
    batches: Callable[[], CalibrationData],
    loss: LossFunction,
    progress: LayerProgress | None,
) -> None:
    """Refit a model in place, or give it the weights that an earlier refit for the same units has kept.

    Args:
        compensation: Refits.
        model: The model as given, or a copy.
        state: The units to keep.
        batches: Gives the calibration batches.
        loss: Gives the loss of the model on a batch.
        progress: Where the refitted weights are kept, in a folder of these units; None: nowhere.
    """
    saved = progress.load(REFIT) if progress else None
    if saved is not None:
        with torch.no_grad():
            for name, entry in saved.items():
                model.get_parameter(name).copy_(entry['weight'])
        return
    names = compensation.apply(model, state, batches(), loss)
    if progress:
        nothing = torch.empty(0)
        progress.save(REFIT, {n: (model.get_parameter(n).detach(), nothing) for n in names})


def without_steps(scored: ScoredUnits, ranking: Ranking) -> ScoredUnits:
    """What a plan keeps of its scores: the last of each unit, and nothing that steps are made with."""
    return replace(
        scored, importance=ranking.importance, rescored={}, data=None, loss=None, progress=None
    )


def check_scores_given(pruner: Any, given: bool) -> None:
    """Raise :class:`UserError` for scores from a table, where units are scored again."""
    if given and pruner.rescoring is not None:
        key = 'prune_cfg.budget.ratios' if pruner.nested else 'prune_cfg.rescoring'
        raise UserError(
            f'{key} scores again after every step, so no table (--from-table, --save-table) holds its '
            'scores; leave one out'
        )
