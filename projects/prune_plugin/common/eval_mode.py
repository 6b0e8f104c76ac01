"""Evaluation mode for a while, and then every module's own mode again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module, fused: bool = False) -> Iterator[None]:
    """No dropout, batch norms on their running statistics; then every module's mode as before.

    Args:
        model: The model; frozen norms keep their mode, too.
        fused: Whether PyTorch may run its fused attention layers. They round differently, depending on
            whether anybody asks for gradients: right for timing and metrics, wrong for comparing.
    """
    modes = [(module, module.training) for module in model.modules()]
    allowed = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(allowed and fused)
    model.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(allowed)
        for module, training in modes:
            module.training = training
