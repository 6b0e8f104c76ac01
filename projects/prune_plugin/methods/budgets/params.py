"""A budget of parameters."""

from ...common.registry import BUDGETS
from .base import Budget
from .costs import product_cost


@BUDGETS.register_module(name='params')
class ParamsBudget(Budget):
    """Remove a fraction of the model's parameters (tied ones are counted once).

    Example:
        >>> prune_cfg = dict(budget=dict(type='params', ratio=0.25))
    """

    quantity = 'params'
    counts_layers = True

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        return product_cost(model, groups)
