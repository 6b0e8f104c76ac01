"""Compensating removed units by updating the remaining weights, one method per file."""

from .base import Compensation
from .least_squares import LeastSquares

__all__ = ['Compensation', 'LeastSquares']
