"""Magnitude pruning, layer by layer: Han et al., arXiv 1506.02626."""

import torch
from torch import nn

from .driver import linears
from .patterns import smallest_of_each


@torch.no_grad()
def prune_magnitude(model: nn.Module, ratio: float, pattern: tuple[int, int] | None = None) -> None:
    """Remove the smallest weights of each linear layer of the decoder, in place."""
    for layer in linears(model.model.layers):
        weight = layer.weight.data
        if pattern is None:
            order = weight.abs().flatten().argsort()
            weight.view(-1)[order[: round(ratio * len(order))]] = 0
        else:
            weight[smallest_of_each(weight.abs(), *pattern)] = 0
