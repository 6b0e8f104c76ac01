"""Methods that prune single weights, one per file."""

from .alps import ALPS
from .base import Sparsifier
from .layer_fit import LayerFit
from .magnitude import Magnitude
from .sparsegpt import SparseGPT
from .wanda import Wanda

__all__ = ['ALPS', 'LayerFit', 'Magnitude', 'SparseGPT', 'Sparsifier', 'Wanda']
