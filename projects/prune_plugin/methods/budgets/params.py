"""A budget of parameters."""

from ...common.registry import BUDGETS
from .costs import product_cost
from .of_range import BudgetOfRange


@BUDGETS.register_module(name='params')
class ParamsBudget(BudgetOfRange):
    """Remove a fraction of the model's parameters (tied ones are counted once).

    Args:
        ratio: Fraction removed, in (0, 1).
        of: ``'model'``: of all parameters; ``'range'``: of those that the units hold which may go, as
            ``layer_start``, ``layer_end``, ``include`` and ``exclude`` limit them.

    Example:
        >>> prune_cfg = dict(budget=dict(type='params', ratio=0.25))
        >>> prune_cfg = dict(
        ...     layer_start=10, layer_end=15, budget=dict(type='params', ratio=0.25, of='range')
        ... )
    """

    quantity = 'params'
    counts_layers = True

    def cost(self, model, groups, profile):
        """See :meth:`Budget.cost`."""
        return self.limited(product_cost(model, groups), groups)
