"""Training a pruned model part by part on what the dense model computes, one method per file."""

from .base import Reconstruction
from .local import LocalReconstruction

__all__ = ['LocalReconstruction', 'Reconstruction']
