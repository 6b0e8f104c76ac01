"""Temporary evaluation modes that restore the training mode of every module."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from .random_state import kept_random_state


@contextmanager
def evaluation_mode(model: nn.Module, fused: bool = False) -> Iterator[None]:
    """Put ``model`` in evaluation mode; on exit restore ``training`` of every single module.

    Args:
        model: The model. Modules that were in evaluation mode in a training model (frozen batch norms)
            are so afterwards.
        fused: Whether PyTorch may use the fused kernels of its transformer layers. Their rounding differs
            from that of the normal path, which is taken if gradients are required: allow them for timing
            and metrics, not where outputs are compared.
    """
    modes = [(module, module.training) for module in model.modules()]
    fastpath_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fastpath_enabled and fused)
    model.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath_enabled)
        for module, training in modes:
            module.training = training


@contextmanager
def as_usual() -> Iterator[None]:
    """Without the caller's ``inference_mode`` and autocast, in which a model can't be followed."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in ('cpu', 'cuda'):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; on exit the random numbers are restored, too."""
    with evaluation_mode(model), kept_random_state(), torch.no_grad():
        yield
