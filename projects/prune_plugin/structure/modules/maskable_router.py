"""Routers of mixtures of experts whose logits can be masked, as a zero row would still be chosen."""

from copy import copy
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

NAME = 'MaskableRouter'
_CLASSES: dict[type, type] = {}
#: Functions whose result is the same weight in another form.
FORMS = {
    'type',
    'to',
    'float',
    'half',
    'bfloat16',
    't',
    'transpose',
    'permute',
    'contiguous',
    '__get__',
}


class MaskableRouter(nn.Module):
    """Mixed into the class of a module that chooses experts, so that masked experts aren't chosen.

    The logits of masked experts become minus infinity where the router's weight is applied; without a mask
    it computes what its own class does.

    Attributes:
        kept_experts: (experts,), 1 for those that may be chosen, 0 for masked ones; None: all may.
        router_weight: Name of the module's own parameter that gives the logits.
    """

    kept_experts: Tensor | None
    router_weight: str

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's own class, without the masked experts."""
        if self.kept_experts is None:
            return super().forward(*args, **kwargs)
        with MaskedLogits(getattr(self, self.router_weight), self.kept_experts > 0):
            return super().forward(*args, **kwargs)


class MaskedLogits(TorchFunctionMode):
    """While it is on, what a weight gives has minus infinity for masked experts.

    Args:
        weight: The weight.
        kept: Bool (experts,).
    """

    def __init__(self, weight: Tensor, kept: Tensor):
        super().__init__()
        self.forms = {id(weight): weight}  # holds them, so that no id is used again
        self.kept = kept

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if not isinstance(out, Tensor) or not any(id(x) in self.forms for x in given):
            return out
        if getattr(func, '__name__', '') in FORMS:
            self.forms[id(out)] = out
        elif len(given) > 1 and out.dim() and out.shape[-1] == len(self.kept):
            return out.masked_fill(~self.kept.to(out.device), float('-inf'))
        return out


def spec(weight: str) -> str:
    """The name of the converter of a module whose parameter ``weight`` gives the logits of experts."""
    return f'{NAME}:{weight}'


def parse(name: str) -> str | None:
    """The inverse of :func:`spec`; None for another converter."""
    kind, _, weight = name.partition(':')
    return weight if kind == NAME and weight.isidentifier() else None


def to_maskable_router(module: nn.Module, weight: str) -> nn.Module:
    """Convert a module whose parameter gives the logits of experts; return a maskable one unchanged."""
    if isinstance(module, MaskableRouter):
        return module
    kind = type(module)
    if kind not in _CLASSES:
        _CLASSES[kind] = type(kind.__name__, (MaskableRouter, kind), {})
    router = copy(module)
    router.__class__ = _CLASSES[kind]
    router._parameters, router._buffers = copy(module._parameters), copy(module._buffers)
    router._modules = copy(module._modules)
    router._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    router.router_weight = weight
    router.register_buffer('kept_experts', None, persistent=False)
    return router
