"""A budget of floating-point operations."""

import logging
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy

from mmengine.logging import print_log
from torch import nn

from ...common.registry import BUDGETS
from ...evaluation.example_inputs import Example, example_of
from ...evaluation.flops import module_flops
from ...structure.slimming import slim
from ...structure.unit_group import UnitGroup
from ..constraint import Cost, sizes
from .correction import to_plan_for
from .costs import ProductCost, ScaledCost, product_cost
from .of_range import BudgetOfRange

#: Plans that are counted, at most.
ROUNDS = 5
#: By how much of the dense FLOPs a plan may differ from what is counted.
TOLERANCE = 1e-3


@BUDGETS.register_module(name='flops')
class FlopsBudget(BudgetOfRange):
    """Remove a fraction of the FLOPs of one forward call: with one sample, or the example given.

    What is planned is counted on a slim copy and corrected, as no rule fits every module.

    Args:
        ratio: Fraction removed, in (0, 1).
        of: ``'model'``: of all FLOPs; ``'range'``: of those of the units which may go, as
            ``layer_start``, ``layer_end``, ``include`` and ``exclude`` limit them.

    Example:
        >>> prune_cfg = dict(budget=dict(type='flops', ratio=0.5))
    """

    quantity = 'flops'
    counts_layers = True
    tried = True

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        example = example_of(model, profile, 1, 'a FLOPs budget')
        return self.limited(flops_cost(model, groups, example), groups)

    def corrected(self, model, groups, trial, cost, profile):
        """See :meth:`Budget.corrected`: by the FLOPs of slim copies, until they are what was planned."""
        example = example_of(model, profile, 1, 'a FLOPs budget')
        dense, full = sum(module_flops(model, example).values()), cost.total(sizes(groups))
        scaled, tried = cost, []  # what was predicted to go at first, and what goes
        plans: list[tuple[float, float, float, Cost]] = []
        for _ in range(ROUNDS):
            counts, state = trial(scaled)
            if not state.reduced:
                return scaled
            copy = slim(deepcopy(model), state)
            removed = dense - sum(module_flops(copy, example).values())
            planned = full - scaled.total(counts)
            if abs(removed - planned) <= TOLERANCE * dense:
                return scaled
            plans.append((abs(removed - planned), planned, removed, scaled))
            tried.append((full - cost.total(counts), removed))
            scaled = ScaledCost(cost, planned / to_plan_for(planned, tried), full)
        _, planned, removed, scaled = min(plans, key=lambda plan: plan[0])
        print_log(
            f'flops: planned for {planned / dense:.2%} less, counted {removed / dense:.2%}, the closest of '
            f'{ROUNDS} plans',
            'current',
            logging.WARNING,
        )
        return scaled


def flops_cost(model: nn.Module, groups: Sequence[UnitGroup], example: Example) -> ProductCost:
    """FLOPs of one forward call as a function of the units kept.

    The FLOPs of a module with matrices are proportional to their number of elements; those of other modules
    (the products inside attention), and of modules that hold all of an attention, to the number of the
    units that they are made for.

    Args:
        model: The model.
        groups: Its unit groups.
        example: Arguments of the forward call.
    """
    flops_by_module = module_flops(model, example)
    owned = Counter(g.owner for g in groups if not g.is_whole and not g.repeated)
    uses: dict[int, float] = {}
    rest: dict[str, float] = {}
    for name, flops in flops_by_module.items():
        weights = matrices(model.get_submodule(name))
        if not weights or owned[name] == 1:
            rest[name] = flops
            continue
        elements = sum(weight.numel() for weight in weights)
        for weight in weights:
            uses[id(weight)] = uses.get(id(weight), 0) + flops / elements
    return product_cost(model, groups, uses, rest, repeats=True)


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """A module's own parameters of two and more dimensions, those behind parametrizations included."""
    behind = getattr(module, 'parametrizations', nn.ModuleDict())
    own = [*module.parameters(recurse=False), *behind.parameters()]
    return [parameter for parameter in own if parameter.dim() > 1]
