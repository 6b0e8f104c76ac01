"""What is known of a model before anything is touched, and what is to go."""

from dataclasses import dataclass, field

from torch import Tensor

from ...structure.prune_state import PruneState
from ...structure.unit_group import UnitGroup
from ..budgets.base import BudgetResult
from ..constraint import Cost


@dataclass
class ScoredUnits:
    """What a pruner knows of a model whatever the ratio: plans for many ratios share it.

    Attributes:
        groups: Unit groups of the model as given.
        importance: Score of every unit, one float64 vector per group.
        refused: ``{module: reason}`` for modules that can't be cut.
        seconds: Time of each step.
        cost: What the units cost, from the first plan on; rank 0 alone counts or measures it.
    """

    groups: list[UnitGroup]
    importance: list[Tensor]
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cost: Cost | None = field(default=None, repr=False)


@dataclass
class Plan:
    """What is to go, before anything is touched.

    Attributes:
        groups: Unit groups of the model as given.
        importance: Score of every unit, one float64 vector per group.
        cost: What one unit of each group costs, float64 (groups,), in the budget's quantity.
        state: The prune state, relative to the model as given.
        refused: ``{module: reason}`` for modules that can't be cut.
        seconds: Time of each step.
        result: What was asked of the budget, and what comes of it by its own cost.
    """

    groups: list[UnitGroup]
    importance: list[Tensor]
    cost: Tensor
    state: PruneState
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    result: BudgetResult = field(default_factory=BudgetResult)
