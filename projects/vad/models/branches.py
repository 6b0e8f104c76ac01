"""Small networks of the head: classification and regression branches, the lane encoder."""

from copy import deepcopy

import torch
from torch import Tensor, nn


def mlp(width: int, out: int, depth: int = 2, norm: bool = False) -> nn.Sequential:
    """``depth`` hidden layers as wide as the input, then a linear layer to ``out``."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width)]
        layers += [nn.LayerNorm(width)] if norm else []
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, out))


def copies(module: nn.Module, count: int) -> nn.ModuleList:
    """``count`` copies of a module, one for each decoder layer."""
    return nn.ModuleList([deepcopy(module) for _ in range(count)])


class LaneLayer(nn.Module):
    """Linear layer, norm and ReLU on each point (state-dict keys ``mlp.*``)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU())

    def forward(self, points: Tensor) -> Tensor:
        """Apply to ``(..., width)``."""
        return self.mlp(points)


class LaneNet(nn.Module):
    """VectorNet's polyline encoder (https://arxiv.org/abs/2005.04259): points to one vector.

    Args:
        width: Of the points' features.
        hidden: Width per layer; a layer's output is twice as wide.
        depth: Layers.
    """

    def __init__(self, width: int, hidden: int, depth: int = 3):
        super().__init__()
        self.layer_seq = nn.Sequential()
        for i in range(depth):
            self.layer_seq.add_module(f'lmlp_{i}', LaneLayer(width, hidden))
            width = 2 * hidden

    def forward(self, points: Tensor) -> Tensor:
        """Encode ``(B, lines, points, width)`` as ``(B, lines, 2 * hidden)``."""
        for layer in self.layer_seq:
            points = layer(points)
            whole = points.amax(-2, keepdim=True).expand_as(points)
            points = torch.cat([points, whole], -1)
        return points.amax(-2)
