"""VAD, vectorized autonomous driving, on MMDetection3D: model, nuScenes data, evaluation."""

from . import datasets, evaluation, models

__all__ = ['datasets', 'evaluation', 'models']
