"""Methods that prune single weights, one per file."""

from .base import Sparsifier
from .magnitude import Magnitude
from .sparsegpt import SparseGPT
from .wanda import Wanda

__all__ = ['Magnitude', 'SparseGPT', 'Sparsifier', 'Wanda']
