"""What pulls units that are to leave towards zero while training, one penalty per file."""

from .base import Penalty
from .greg import GReg
from .group_lasso import GroupLasso
from .rsst import RSST

__all__ = ['GReg', 'GroupLasso', 'Penalty', 'RSST']
