"""What a unit is worth, one criterion per file."""

from .base import Criterion
from .by_kind import ByKind
from .fisher import Fisher
from .magnitude import L1, L2
from .random import Random
from .taylor import Taylor
from .usage import Usage
from .wanda import Wanda

__all__ = ['L1', 'L2', 'ByKind', 'Criterion', 'Fisher', 'Random', 'Taylor', 'Usage', 'Wanda']
