"""Weight-level methods, one per file."""

from .base import Sparsifier
from .magnitude import Magnitude

__all__ = ['Magnitude', 'Sparsifier']
