"""Lottery tickets: which units or weights are in force from one pruning state to the next."""

from torch import nn

from ...methods.pruners import Pruner, StructuredPruner
from .base import Ticket
from .units import UnitTicket
from .weights import WeightTicket

__all__ = ['Ticket', 'UnitTicket', 'WeightTicket', 'ticket_for']


def ticket_for(pruner: Pruner, model: nn.Module) -> Ticket:
    """The ticket of a pruner, with everything in force."""
    if isinstance(pruner, StructuredPruner):
        return UnitTicket(pruner, model, pruner.penalty is not None)
    return WeightTicket(pruner, model, False)
