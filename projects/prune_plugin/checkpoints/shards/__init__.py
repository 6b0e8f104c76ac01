"""Weights in safetensors files, read and written tensor by tensor: a model is never held as a whole."""

from .reading import ShardedWeights
from .writing import ShardWriter, plan_shards

__all__ = ['ShardWriter', 'ShardedWeights', 'plan_shards']
