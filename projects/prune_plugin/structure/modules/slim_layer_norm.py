"""Layer norm in which removed features count as zeros."""

import torch
from torch import Tensor, nn


class SlimLayerNorm(nn.Module):
    """Replacement for ``nn.LayerNorm`` whose mean and variance include removed features as zeros.

    Statistics over the kept features alone would differ from those of the masked model. Here sums are
    divided by the dense width, so that removing a feature is equivalent to setting it to zero.

    Args:
        dense: The module to replace, over one dimension; its parameters are shared.
    """

    def __init__(self, dense: nn.LayerNorm):
        super().__init__()
        (self.dense_features,) = dense.normalized_shape
        self.eps = dense.eps
        self.weight = dense.weight
        self.register_parameter('bias', dense.bias)
        self.train(dense.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension, in at least float32; the output has the input's dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.sum(-1, keepdim=True) / self.dense_features
        centred = wide - mean
        removed = self.dense_features - x.shape[-1]
        squares = centred.square().sum(-1, keepdim=True) + removed * mean.square()
        normed = centred * torch.rsqrt(squares / self.dense_features + self.eps)
        out = normed * self.weight
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        """Kept and dense width, and epsilon."""
        return f'{len(self.weight)} of {self.dense_features}, eps={self.eps}'
