"""Budgets: the quantities that pruning can limit, one per file."""

from ...common.validation import checked_ratio
from ..constraint import Constraint
from .base import Budget, BudgetResult
from .costs import ProductCost, product_cost
from .flops import FlopsBudget, flops_cost
from .latency import LatencyBudget
from .metric import MetricBudget
from .params import ParamsBudget
from .units import UnitsBudget
from .weights import WeightsBudget

__all__ = [
    'Budget',
    'BudgetResult',
    'Constraint',
    'FlopsBudget',
    'LatencyBudget',
    'MetricBudget',
    'ParamsBudget',
    'ProductCost',
    'UnitsBudget',
    'WeightsBudget',
    'checked_ratio',
    'flops_cost',
    'product_cost',
]
