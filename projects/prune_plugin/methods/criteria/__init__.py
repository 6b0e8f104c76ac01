"""Criteria: the importance of units, one criterion per file."""

from .activation import Activation
from .base import Criterion
from .by_kind import ByKind
from .fisher import Fisher
from .magnitude import L1, L2
from .optimal_brain_surgeon import OptimalBrainSurgeon
from .random import Random
from .remain import Remain
from .taylor import Taylor
from .usage import Usage
from .wanda import Wanda

__all__ = [
    'L1',
    'L2',
    'Activation',
    'ByKind',
    'Criterion',
    'Fisher',
    'OptimalBrainSurgeon',
    'Random',
    'Remain',
    'Taylor',
    'Usage',
    'Wanda',
]
