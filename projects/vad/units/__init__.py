"""What can be removed from VAD's own modules."""

from . import attention, lanes
from .queries import MapQueries, MotionModes, ObjectQueries

__all__ = ['MapQueries', 'MotionModes', 'ObjectQueries', 'attention', 'lanes']
