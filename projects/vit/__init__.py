"""The ViT family: timm models, CIFAR and digits data, and accuracy, under MMEngine."""

from . import datasets, evaluation, models

__all__ = ['datasets', 'evaluation', 'models']
