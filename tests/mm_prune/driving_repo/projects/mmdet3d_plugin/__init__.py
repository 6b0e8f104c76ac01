"""A driving repository's own model, data and metric; it knows nothing of pruning."""

from .dataset import Roads
from .metric import SameTurn
from .model import Driver

__all__ = ['Driver', 'Roads', 'SameTurn']
