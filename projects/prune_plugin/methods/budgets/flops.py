"""A budget of floating-point operations."""

from collections.abc import Sequence

from torch import nn

from ...common.registry import BUDGETS
from ...evaluation.example_inputs import Example, example_of
from ...evaluation.flops import module_flops
from ...structure.unit_group import UnitGroup
from .costs import ProductCost, product_cost
from .of_range import BudgetOfRange


@BUDGETS.register_module(name='flops')
class FlopsBudget(BudgetOfRange):
    """Remove a fraction of the FLOPs of one forward call with one sample.

    Args:
        ratio: Fraction removed, in (0, 1).
        of: ``'model'``: of all FLOPs; ``'range'``: of those of the units which may go, as
            ``layer_start``, ``layer_end``, ``include`` and ``exclude`` limit them.

    Example:
        >>> prune_cfg = dict(budget=dict(type='flops', ratio=0.5))
    """

    quantity = 'flops'
    counts_layers = True

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        example = example_of(model, profile, 1, 'a FLOPs budget')
        return self.limited(flops_cost(model, groups, example), groups)


def flops_cost(model: nn.Module, groups: Sequence[UnitGroup], example: Example) -> ProductCost:
    """FLOPs of one forward call as a function of the units kept.

    The FLOPs of a layer with a weight are proportional to the weight's number of elements; those of other
    modules (the products inside attention) to the number of the units that they own.

    Args:
        model: The model.
        groups: Its unit groups.
        example: Arguments of the forward call.
    """
    flops_by_module = module_flops(model, example)
    owners = {group.owner for group in groups}
    uses: dict[int, float] = {}
    rest: dict[str, float] = {}
    for name, flops in flops_by_module.items():
        weight = getattr(model.get_submodule(name), 'weight', None)
        if isinstance(weight, nn.Parameter) and weight.dim() > 1 and name not in owners:
            uses[id(weight)] = uses.get(id(weight), 0) + flops / weight.numel()
        else:
            rest[name] = flops
    return product_cost(model, groups, uses, rest, repeats=True)
