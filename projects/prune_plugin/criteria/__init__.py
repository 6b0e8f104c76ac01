"""What a unit is worth, one criterion per file."""

from .base import Criterion
from .magnitude import L1, L2
from .random import Random
from .taylor import Taylor
from .wanda import Wanda

__all__ = ['L1', 'L2', 'Criterion', 'Random', 'Taylor', 'Wanda']
