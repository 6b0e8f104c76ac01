"""Experts whose width isn't a multiple of what a kernel for all experts at once takes."""

from copy import copy

from torch import nn


def has_experts_kernel(module: nn.Module) -> bool:
    """Whether a module of Hugging Face's transformers chooses among implementations of its experts."""
    config = getattr(module, 'config', None)
    return hasattr(module, '_is_expert_parallel') and hasattr(config, '_experts_implementation')


def to_eager_experts(module: nn.Module) -> nn.Module:
    """Run expert after expert: ``grouped_mm`` takes widths of multiples of 16 bytes only."""
    module = copy(module)
    config = copy(module.config)
    config._experts_implementation = 'eager'
    module.config = config
    return module
