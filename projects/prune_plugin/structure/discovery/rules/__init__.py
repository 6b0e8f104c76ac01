"""What ATen's operations do with labels: rules by operation, registered when this is imported."""

from . import convolutions, elementwise, movement, norms, products, reductions, writing

__all__ = ['convolutions', 'elementwise', 'movement', 'norms', 'products', 'reductions', 'writing']
