"""Allocators: how many units each group keeps, one allocator per file."""

from .base import Allocator, check_reachable, greedy, rounded_floors
from .global_ranking import Global
from .knapsack import Knapsack
from .layer_wise import LayerWise
from .refill import Refill
from .uniform import Uniform

__all__ = ['Allocator', 'Global', 'Knapsack', 'LayerWise', 'Refill', 'Uniform', 'greedy']
