"""Layer norm over a width from which features were removed."""

import torch
from torch import Tensor, nn


class SlimLayerNorm(nn.Module):
    """Takes the place of ``nn.LayerNorm``: features that were removed count as zeros.

    A norm over the features that are left would have another mean and variance than the dense
    model's, and another output for each of them. This one divides by the dense width, so that
    removing a feature is what setting it to zero is.

    Args:
        dense: The module to take over, over one dimension; its parameters are shared.
    """

    def __init__(self, dense: nn.LayerNorm):
        super().__init__()
        (self.dense_features,) = dense.normalized_shape
        self.eps = dense.eps
        self.weight = dense.weight
        self.register_parameter('bias', dense.bias)
        self.train(dense.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension, in float32 at least; the result has the input's type."""
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = exact.sum(-1, keepdim=True) / self.dense_features
        centred = exact - mean
        removed = self.dense_features - x.shape[-1]
        squares = centred.square().sum(-1, keepdim=True) + removed * mean.square()
        normed = centred * torch.rsqrt(squares / self.dense_features + self.eps)
        out = normed * self.weight
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        """Widths now and before."""
        return f'{len(self.weight)} of {self.dense_features}, eps={self.eps}'
