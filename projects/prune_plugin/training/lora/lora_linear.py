"""A linear layer with low-rank adapters that keeps masked weights at zero. Needs peft."""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor
from torch.autograd import Function

ADAPTER = 'default'


def masked_update(weight: Tensor, a: Tensor, b: Tensor, scaling: float, merge: bool) -> Tensor:
    """The adapters' update ``scaling * b @ a`` of the nonzero weights, zero where the weight is zero.

    Args:
        weight: Base weight, (out, in).
        a: Factor A, (rank, in).
        b: Factor B, (out, rank).
        scaling: Factor on the product.
        merge: Whether to add ``weight``.

    Returns:
        (out, in), of the weight's dtype.
    """
    with torch.autocast(weight.device.type, enabled=False):
        update = (b @ a * scaling).to(weight.dtype)
    return torch.where(weight != 0, weight + update if merge else update, 0.0)


class MaskedAdapters(Function):
    """A linear layer whose weight is :func:`masked_update`, recomputed in the backward pass.

    Saving these weights for the backward pass would take as much memory as all adapted weights.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scaling, merge):
        """``x @ masked_update(...).T + bias``; only ``x``, ``a`` and ``b`` get gradients."""
        ctx.save_for_backward(x, weight, a, b)
        ctx.scaling, ctx.merge = scaling, merge
        return F.linear(x, masked_update(weight, a, b, scaling, merge).to(x.dtype), bias)

    @staticmethod
    def backward(ctx, grad):
        """Gradients of ``x``, ``a`` and ``b``."""
        x, weight, a, b = ctx.saved_tensors
        grad_x = grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            update = masked_update(weight, a, b, ctx.scaling, ctx.merge)
            grad_x = (grad @ update.to(grad.dtype)).to(x.dtype)
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            of_update = grad.flatten(0, -2).mT @ x.flatten(0, -2).to(grad.dtype)
            of_update = torch.where(weight != 0, of_update.to(a.dtype), 0.0) * ctx.scaling
            grad_a, grad_b = b.mT @ of_update, of_update @ a.mT
        return grad_x, None, None, grad_a, grad_b, None, None


class LoraLinear(Linear):
    """peft's linear layer with adapters, whose state dict is that of the merged linear layer.

    If ``masked`` is set, adapters don't change weights that are zero, neither in training nor in the merged
    weight, so both compute the same. The base weight isn't changed by training.

    Loading the state dict of a plain linear layer sets the base weight and sets the product of the
    adapters to zero. A state dict with ``base_layer`` and adapters is loaded as it is.
    """

    #: Marks such layers, so that the plugin finds them without importing peft.
    holds_adapters = True
    #: Whether zero weights of the base layer stay zero.
    masked = False

    def adapters(self) -> dict[str, Tensor]:
        """The factors A, (rank, in), and B, (out, rank), by their names under this layer."""
        return {
            f'lora_A.{ADAPTER}.weight': self.lora_A[ADAPTER].weight,
            f'lora_B.{ADAPTER}.weight': self.lora_B[ADAPTER].weight,
        }

    def merged_weight(self) -> Tensor:
        """The weight of the equivalent plain linear layer, (out, in)."""
        a, b = (tensor.detach() for tensor in self.adapters().values())
        weight, scaling = self.base_layer.weight.detach(), self.scaling[ADAPTER]
        if self.masked:
            return masked_update(weight, a, b, scaling, merge=True)
        return weight + (b @ a * scaling).to(weight.dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The output of the merged layer (with dropout on the adapters' input in training)."""
        if not self.masked:
            return super().forward(x, *args, **kwargs)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        base, dropout = self.base_layer, self.lora_dropout[ADAPTER]
        a, b = self.adapters().values()
        scaling = self.scaling[ADAPTER]
        if isinstance(dropout, torch.nn.Identity) or not self.training:
            bias = None if base.bias is None else base.bias.to(x.dtype)
            return MaskedAdapters.apply(x, base.weight, bias, a, b, scaling, True)
        return base(x) + MaskedAdapters.apply(dropout(x), base.weight, None, a, b, scaling, False)

    def state_dict(self, *args, destination=None, prefix='', keep_vars=False) -> dict[str, Tensor]:
        """The state dict of the merged layer: ``weight`` and ``bias``."""
        destination = {} if destination is None else destination
        destination[f'{prefix}weight'] = self.merged_weight()
        bias = self.base_layer.bias
        if bias is not None:
            destination[f'{prefix}bias'] = bias if keep_vars else bias.detach()
        return destination

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        if f'{prefix}base_layer.weight' not in state_dict and f'{prefix}weight' in state_dict:
            state_dict[f'{prefix}base_layer.weight'] = state_dict.pop(f'{prefix}weight')
        if f'{prefix}bias' in state_dict:
            state_dict[f'{prefix}base_layer.bias'] = state_dict.pop(f'{prefix}bias')
        for name, tensor in self.adapters().items():
            default = tensor.detach() if 'lora_A' in name else torch.zeros_like(tensor)
            state_dict.setdefault(f'{prefix}{name}', default)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
