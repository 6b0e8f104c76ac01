"""MMEngine train loops."""

from .limited_epochs import LimitedEpochTrainLoop

__all__ = ['LimitedEpochTrainLoop']
