"""Making up for removed units with the weights that stay, one method per file."""

from .base import Compensation
from .least_squares import LeastSquares

__all__ = ['Compensation', 'LeastSquares']
