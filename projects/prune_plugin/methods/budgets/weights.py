"""A budget of single weights."""

from ...common.errors import UserError
from ...common.registry import BUDGETS
from .base import Budget


@BUDGETS.register_module(name='weights')
class WeightsBudget(Budget):
    """Remove a fraction of the weights of linear and convolution layers (for a WeightPruner).

    Example:
        >>> prune_cfg = dict(type='WeightPruner', budget=dict(type='weights', ratio=0.5))
    """

    quantity = 'weights'

    def cost(self, model, groups, profile):
        """Not defined: whole units aren't single weights."""
        raise UserError(
            "prune_cfg.budget.type is 'weights', which counts no units; use params, flops, units or "
            'latency'
        )
