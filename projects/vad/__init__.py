"""VAD, vectorized autonomous driving, on MMDetection3D: model, data, evaluation, units to prune."""

from . import datasets, evaluation, models, units

__all__ = ['datasets', 'evaluation', 'models', 'units']
