"""RMS norm in which removed features count as zeros."""

from copy import copy
from typing import Any

from torch import Tensor, nn

_CLASSES: dict[type, type] = {}


class SlimRMSNorm(nn.Module):
    """Mixed into a class of RMS norms so that the mean square includes removed features as zeros.

    The norm itself divides by the number of features that it sees; features are scaled by the root of the
    kept share before it and back after it, which makes it the dense number.

    Attributes:
        dense_features: Number of features of the dense norm.
    """

    dense_features: int

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Normalise the last dimension."""
        if 'normalized_shape' in vars(self):  # PyTorch's own
            self.normalized_shape = (x.shape[-1],)
        scale = (x.shape[-1] / self.dense_features) ** 0.5
        return super().forward(x * scale, *args, **kwargs) / scale

    def extra_repr(self) -> str:
        """Kept and dense width."""
        kept = next(self.parameters()).shape[0]
        return f'{kept} of {self.dense_features}'


def to_slim_rms_norm(module: nn.Module) -> nn.Module:
    """Convert any RMS norm over the last dimension; return a slim one unchanged."""
    if isinstance(module, SlimRMSNorm):
        return module
    kind = type(module)
    if kind not in _CLASSES:
        _CLASSES[kind] = type(f'Slim{kind.__name__}', (SlimRMSNorm, kind), {})
    slim = copy(module)
    slim.__class__ = _CLASSES[kind]
    slim._parameters = copy(module._parameters)
    slim.dense_features = next(module.parameters()).shape[0]
    return slim
