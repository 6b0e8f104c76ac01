"""Running a model with labels."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from . import rules as rules  # registers them
from .call import Call
from .rules.norms import norm_of, norm_tracks
from .tracer import Tracer


def run(model: nn.Module, call: Call) -> Tracer:
    """Run a model once and follow its labels.

    Args:
        model: In evaluation mode.
        call: An example call.

    Returns:
        The tracer, with pins on what leaves the model.
    """
    tracer = Tracer(model)
    handles = []
    for name, module in model.named_modules():
        handles += watch(tracer, name, module)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(without_mkldnn())
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(tracer)
            out = call.on(model)
    finally:
        for handle in handles:
            handle.remove()
    for tensor in output_tensors(out):
        for track in tracer.of(tensor).tracks:
            tracer.labels.pin(track.ids, 'it is an output of the model')
    return tracer


@contextmanager
def without_mkldnn() -> Iterator[None]:
    """Recurrent layers run as single operations."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def output_tensors(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """All tensors in a model's output, also in objects; without those of a key/value cache."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, 'to_tuple'):
            yield from output_tensors(leaf.to_tuple(), depth)
        elif depth and hasattr(leaf, '__dict__') and not isinstance(leaf, type | nn.Module):
            if 'Cache' not in type(leaf).__name__:
                yield from output_tensors(list(vars(leaf).values()), depth - 1)


def watch(tracer: Tracer, name: str, module: nn.Module) -> list[Any]:
    """Hooks that take norms as wholes, where they are over the last dimension of what they are given."""
    kind = norm_of(module)

    def over_last(args: tuple, kwargs: dict) -> Tensor | None:
        x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        widths = {p.shape[0] for p in module.parameters(recurse=False) if p.dim() == 1}
        return x if x is not None and x.dim() and widths <= {x.shape[-1]} else None

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if over_last(args, kwargs) is not None:
            tracer.suspended += 1

    def leave(module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
        if (x := over_last(args, kwargs)) is None:
            return
        tracer.suspended -= 1
        if not tracer.suspended:
            norm_tracks(tracer, name, kind, module, x, out)

    if not kind:
        return []
    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave, with_kwargs=True),
    ]
