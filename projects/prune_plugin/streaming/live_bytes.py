"""How much memory the tensors of a forward pass take at once, from shapes alone."""

import weakref
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is on, and alive at the same time.

    Attributes:
        now: Bytes that are alive.
        peak: The most that were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.paused:
            return out
        own = {storage_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and storage_of(tensor) not in own:
                self.made(tensor)
        return out

    def made(self, tensor: Tensor) -> None:
        """Count a tensor until it is gone."""
        size = tensor.untyped_storage().nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor, self.freed, size)

    def freed(self, size: int) -> None:
        """A tensor is gone."""
        self.now -= size


def storage_of(tensor: Tensor) -> int:
    """What views of the same numbers have in common."""
    return tensor.untyped_storage()._cdata


class FusedAttention(TorchFunctionMode):
    """Has attention counted as kernels compute it: without a matrix of all pairs of tokens.

    Args:
        live: The count.
    """

    def __init__(self, live: LiveBytes):
        super().__init__()
        self.live = live

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.live.paused = True
        out = func(*args, **(kwargs or {}))
        self.live.paused = False
        self.live.made(out)
        return out


def bytes_of(tensors: Any) -> int:
    """Bytes of all tensors in lists and dicts, each counted once."""
    leaves = {id(x): x for x in tree_leaves(tensors) if isinstance(x, Tensor)}
    return sum(x.numel() * x.element_size() for x in leaves.values())


@torch.no_grad()
def activations_of(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[int, int]:
    """Of a call on the meta device the most bytes that are alive at once, and before a layer runs.

    Args:
        module: What is called.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """
    held = [0]
    with LiveBytes() as live, FusedAttention(live), ExitStack() as stack:
        for layer in module.modules():
            if any(p.dim() > 1 for p in layer.parameters(recurse=False)):
                hook = layer.register_forward_pre_hook(lambda *_: held.append(live.now))
                stack.callback(hook.remove)
        module(*args, **kwargs)
    return live.peak, max(held)
