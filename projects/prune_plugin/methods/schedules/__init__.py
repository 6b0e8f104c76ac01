"""Schedules: the target of each round, one schedule per file."""

from .base import Round, Schedule
from .cubic import Cubic
from .geometric import Geometric
from .one_shot import OneShot
from .steps import Steps

__all__ = ['Cubic', 'Geometric', 'OneShot', 'Round', 'Schedule', 'Steps']
