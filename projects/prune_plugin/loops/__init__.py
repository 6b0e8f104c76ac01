"""MMEngine train loops."""

from .iterative_prune import IterativePruneLoop
from .limited_epochs import LimitedEpochTrainLoop

__all__ = ['IterativePruneLoop', 'LimitedEpochTrainLoop']
