"""Replacement for a linear layer without input features, for export."""

import torch
from torch import Tensor, nn


class ConstantLinear(nn.Module):
    """Replacement for an ``nn.Linear`` with ``in_features=0`` that doesn't compute with empty tensors.

    Args:
        linear: The layer; its bias is shared.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.out_features = linear.out_features
        self.weight = linear.weight
        self.register_parameter('bias', linear.bias)
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return the bias, or zeros, for each row of ``x``, whose last dimension has size 0."""
        shape = (*x.shape[:-1], self.out_features)
        zeros = torch.zeros(shape, dtype=self.weight.dtype, device=self.weight.device)
        return zeros if self.bias is None else zeros + self.bias
