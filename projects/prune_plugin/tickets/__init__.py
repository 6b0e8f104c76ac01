"""Lottery tickets: which units or weights are in force from one pruning state to the next."""

from .base import Ticket, ticket_for
from .units import UnitTicket
from .weights import WeightTicket

__all__ = ['Ticket', 'UnitTicket', 'WeightTicket', 'ticket_for']
