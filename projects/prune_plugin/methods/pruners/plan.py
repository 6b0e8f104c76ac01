"""What is known of a model before anything is changed, what is to be removed, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...checkpoints.packed_masks import pack_masks
from ...structure.prune_state import PruneState, compose
from ...structure.unit_group import UnitGroup
from ..budgets.base import BudgetResult
from ..constraint import Cost
from .layer_progress import LayerProgress


@dataclass
class ScoredUnits:
    """What a pruner knows of a model whatever the ratio: plans for many ratios share it.

    Attributes:
        groups: Unit groups of the model as given; none for a pruner of single weights.
        importance: Score of every unit, one float64 vector per group.
        refused: ``{module: reason}`` for modules that can't be pruned.
        seconds: Time of each step.
        cost: What the units cost, from the first plan on; rank 0 alone counts or measures it.
        inputs: Statistics of what each layer reads, for sparsifiers that observe all layers in the model
            as it is.
        proofs: How each group was found, and whether it was tried on a copy, by name.
        example: Arguments of a forward call that the user gave, for budgets that run the model.
        data: What gives the calibration batches, where units are scored again in steps; else None.
        loss: Gives the loss of the model on a batch, where they are.
        rescored: Scores after each of these steps, by its name.
        progress: Where finished steps are kept, so that a killed run can go on; None: nowhere.
    """

    groups: list[UnitGroup] = field(default_factory=list)
    importance: list[Tensor] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cost: Cost | None = field(default=None, repr=False)
    inputs: dict[str, Any] = field(default_factory=dict, repr=False)
    proofs: dict[str, str] = field(default_factory=dict)
    example: Any = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)
    loss: Any = field(default=None, repr=False)
    rescored: dict[str, list[Tensor]] = field(default_factory=dict, repr=False)
    progress: LayerProgress | None = field(default=None, repr=False)


@dataclass
class Plan:
    """What is to be removed, before anything is changed.

    Attributes:
        digest: Plans with equal ones give equal models; empty: nothing would be removed.
        seconds: Time of each step.
        result: What was asked of the budget, and what comes of it by its own cost.
        scored: What it was made from.
        state: Which units are kept, relative to the model as given; None: shapes don't change.
    """

    digest: str
    seconds: dict[str, float]
    result: BudgetResult
    scored: ScoredUnits = field(repr=False)
    state: PruneState | None

    @property
    def groups(self) -> list[UnitGroup]:
        """Unit groups of the model as given."""
        return self.scored.groups

    @property
    def importance(self) -> list[Tensor]:
        """Score of every unit, one float64 vector per group."""
        return self.scored.importance

    @property
    def refused(self) -> dict[str, str]:
        """``{module: reason}`` for modules that can't be pruned."""
        return self.scored.refused

    @property
    def units(self) -> 'UnitPlan | None':
        """The plan, if it is one of units."""
        return None


@dataclass
class UnitPlan(Plan):
    """Which units are kept.

    Attributes:
        cost: What one unit of each group costs, float64 (groups,), in the budget's quantity.
    """

    state: PruneState
    cost: Tensor

    @property
    def units(self) -> 'UnitPlan':
        """See :class:`Plan`."""
        return self


@dataclass
class WeightPlan(Plan):
    """How many single weights are removed.

    Attributes:
        ratios: The fraction to remove of each weight, by name.
    """

    ratios: dict[str, float]


@dataclass
class Pruned:
    """A pruned model, and what describes it.

    Attributes:
        model: Slim, or with weights set to zero.
        state: Which units are kept, relative to the model that was pruned; None: its shapes are as before.
        masks: Which weights are kept, bool by parameter name.
        result: What came of the budget, where that is known only now.
    """

    model: nn.Module
    state: PruneState | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    result: BudgetResult | None = None

    def describe(self, prior_state: PruneState | None = None) -> dict[str, Any]:
        """What a checkpoint holds beside the weights: ``masks``, or ``prune_state`` for its ``meta``.

        Args:
            prior_state: Of the model that was pruned, if it was slim already.
        """
        if self.state is None:
            return {'masks': pack_masks(dict(self.masks))}
        return {'meta': {'prune_state': compose(prior_state, self.state).to_dict()}}

    @property
    def zeros(self) -> float | None:
        """The fraction of weights that the masks remove; None without masks."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / total if total else None
