"""Penalties that shrink the units to remove towards zero during training, one per file."""

from .base import Penalty
from .greg import GReg
from .group_lasso import GroupLasso
from .rsst import RSST

__all__ = ['GReg', 'GroupLasso', 'Penalty', 'RSST']
