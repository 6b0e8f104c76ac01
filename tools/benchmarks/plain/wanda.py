"""Wanda: Sun et al., arXiv 2306.11695, algorithm 1."""

import torch
from torch import Tensor, nn

from .patterns import smallest_of_each


class Wanda:
    """One layer's input norms, and the choice they make.

    Args:
        layer: The layer; its weight is changed in place.
    """

    def __init__(self, layer: nn.Linear):
        self.layer = layer
        self.squares = torch.zeros(layer.in_features)

    def add(self, inputs: Tensor) -> None:
        """Add up the squares of each input feature; inputs are (..., in)."""
        self.squares += inputs.flatten(0, -2).float().square().sum(0)

    def prune(self, ratio: float, pattern: tuple[int, int] | None = None) -> None:
        """Remove the smallest ``|weight| x norm`` of each output row."""
        weight = self.layer.weight.data
        scores = weight.abs() * self.squares.sqrt()
        if pattern is None:
            order = scores.sort(dim=1, stable=True).indices
            weight.scatter_(1, order[:, : int(ratio * weight.shape[1])], 0)
        else:
            weight[smallest_of_each(scores, *pattern)] = 0
