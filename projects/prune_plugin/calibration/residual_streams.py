"""Residual streams: what a layer's output is added to, found by watching one forward pass."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..common.errors import UserError

#: How many different inputs of modules before a layer's output may be the stream that it is added to, and
#: how many after it may be the sum.
WINDOW = 8
#: Largest difference from the sum that is rounding, in steps of the sum's largest number.
ROUNDING_STEPS = 8
#: Smallest output that can be seen in a sum, in multiples of that rounding.
VISIBLE = 10


@dataclass(frozen=True)
class Stream:
    """Where a layer's output goes: to ``stream + scale * output``.

    Attributes:
        source: Name of a module that reads the stream, before the layer's output is added.
        scale: A factor per output channel, float32 (outputs,), such as that of a layer scale; None: 1.
    """

    source: str
    scale: Tensor | None = None


def first_tensor(args: tuple, kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first tensor of floating point numbers among a module's arguments."""
    for leaf in tree_leaves((args, dict(kwargs))):
        if isinstance(leaf, Tensor):
            return leaf if leaf.is_floating_point() else None
    return None


@dataclass
class Read:
    """What a module has read: its name, the tensor and its version, and a copy of it."""

    name: str
    tensor: Tensor
    version: int
    value: Tensor


@dataclass
class Waiting:
    """A layer whose output has not been seen in a sum yet, and the streams that it may be added to."""

    output: Tensor
    streams: list[Read]
    left: int = WINDOW


@torch.no_grad()
def find_streams(
    model: nn.Module, names: Sequence[str], call: Callable[[], Any]
) -> dict[str, Stream]:
    """The residual streams of layers whose output, or a multiple per channel of it, is added to one.

    A layer's stream is found if modules read it before the layer has run and the sum afterwards, as the
    norms of transformers do. That is tried by arithmetic on the example, whatever the modules' classes.

    Args:
        model: The model, in evaluation mode.
        names: The layers; the last dimension of their output, or of its first tensor, is its channels.
        call: Runs the model on a small batch.

    Returns:
        By name, those that were found.
    """
    found: dict[str, Stream] = {}
    waiting: dict[str, Waiting] = {}
    reads: deque[Read] = deque(maxlen=WINDOW)

    def read(module: nn.Module, args: tuple, kwargs: dict, name: str) -> None:
        x = first_tensor(args, kwargs)
        if x is None or (reads and reads[-1].tensor is x and reads[-1].version == x._version):
            return
        compare(x)
        reads.append(Read(name, x, x._version, x.detach().clone()))

    def compare(x: Tensor) -> None:
        for layer, output in list(waiting.items()):
            if alike(output.output, x) and (stream := added_to(output, x)):
                found[layer] = stream
                del waiting[layer]
                continue
            output.left -= 1
            if not output.left:
                del waiting[layer]

    def ended(module: nn.Module, args: tuple, output: Any) -> None:
        x = first_tensor((output,), {})
        if x is not None:
            compare(x)  # of a part of a model, nothing may read the last sum

    def ran(module: nn.Module, args: tuple, output: Any, name: str) -> None:
        output = first_tensor((output,), {})
        if name in found or name in waiting or output is None:
            return
        streams = [r for r in reversed(reads) if alike(r.value, output)]
        unchanged = [r for r in streams if r.tensor._version == r.version]
        waiting[name] = Waiting(output.detach().clone(), unchanged)

    handles = [
        module.register_forward_pre_hook(partial(read, name=name), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    handles += [model.get_submodule(n).register_forward_hook(partial(ran, name=n)) for n in names]
    handles.append(model.register_forward_hook(ended))
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in names if name in found}


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have as many rows of as many channels, on the same device."""
    if not first.dim() or first.device != second.device:
        return False
    return first.numel() == second.numel() and first.shape[-1:] == second.shape[-1:]


def find_sublayers(model: nn.Module, call: Callable[[], Any]) -> dict[str, Stream]:
    """The modules whose output is added to a residual stream, such as attentions and MLPs, as they run.

    Of modules inside one another it is the outermost.

    Args:
        model: The model, in evaluation mode.
        call: Runs the model on a small batch.
    """
    order: list[str] = []

    def ran(module: nn.Module, args: tuple, output: Any, name: str) -> None:
        if name not in order:
            order.append(name)

    named = {name: module for name, module in model.named_modules() if name}
    handles = [m.register_forward_hook(partial(ran, name=n)) for n, m in named.items()]
    try:
        streams = find_streams(model, list(named), call)
    finally:
        for handle in handles:
            handle.remove()
    with_weights = {n: s for n, s in streams.items() if any(True for _ in named[n].parameters())}
    outermost = {
        name
        for name in with_weights
        if not any(name.startswith(f'{other}.') for other in with_weights)
    }
    return {name: with_weights[name] for name in order if name in outermost}


def added_to(waiting: Waiting, total: Tensor) -> Stream | None:
    """The stream to which a layer's output was added to make a sum; None if it was to none of them."""
    channels = total.shape[-1]
    output = waiting.output.float().reshape(-1, channels)
    summed = total.float().reshape(-1, channels)
    rounding = ROUNDING_STEPS * torch.finfo(total.dtype).eps * float(total.abs().max())
    for stream in waiting.streams:
        change = summed - stream.value.float().reshape(-1, channels)
        if float(change.abs().max()) < VISIBLE * rounding:
            continue  # too small to be seen in the sum
        if float((change - output).abs().max()) <= rounding:
            return Stream(stream.name)
        scale = (change * output).sum(0) / output.square().sum(0).clamp_min(1e-30)
        if len(output) > 1 and float((change - scale * output).abs().max()) <= rounding:
            return Stream(stream.name, scale)
    return None


class StreamReads:
    """The streams at layers, for each pass of :func:`.sequential.run_layer_by_layer`, as they get there.

    Args:
        model: The model.
        streams: From :func:`find_streams`.
    """

    def __init__(self, model: nn.Module, streams: Mapping[str, Stream]):
        self.model, self.streams = model, streams
        self.last: dict[tuple[Any, str], Tensor] = {}
        self.waiting: dict[str, list[Tensor]] = {}
        self.taken: set[str] = set()

    @contextmanager
    def watched(self) -> Iterator['StreamReads']:
        """Around the passes, and entered before they begin: a layer's stream is noted before it pauses."""
        from greenlet import getcurrent

        def read(module: nn.Module, args: tuple, kwargs: dict, name: str) -> None:
            x = first_tensor(args, kwargs)
            if x is not None and self.is_awaited(name):
                self.last[getcurrent(), name] = x.detach()

        def reached(module: nn.Module, args: tuple, layer: str) -> None:
            x = self.last.get((getcurrent(), self.streams[layer].source))
            if x is not None and layer not in self.taken:
                self.waiting.setdefault(layer, []).append(x)

        sources = dict.fromkeys(stream.source for stream in self.streams.values())
        handles = [
            self.model.get_submodule(name).register_forward_pre_hook(
                partial(read, name=name), with_kwargs=True
            )
            for name in sources
        ]
        handles += [
            self.model.get_submodule(layer).register_forward_pre_hook(partial(reached, layer=layer))
            for layer in self.streams
        ]
        try:
            yield self
        finally:
            self.last.clear()
            self.waiting.clear()
            for handle in handles:
                handle.remove()

    def is_awaited(self, source: str) -> bool:
        """Whether a layer that has not been taken yet is added to what this module reads."""
        return any(s.source == source and n not in self.taken for n, s in self.streams.items())

    def take(self, layer: str, dense: int, passes: int) -> list[tuple[Tensor, Tensor]]:
        """The stream at a layer in the dense model and in the model, for each batch that both run.

        Args:
            layer: Its name; its passes pause there.
            dense: Number of passes of the dense model.
            passes: Number of passes of the model.

        Returns:
            Pairs of tensors.

        Raises:
            UserError: not every pass has read the stream.
        """
        self.taken.add(layer)
        source = self.streams[layer].source
        if not self.is_awaited(source):  # else the streams of all layers would stay in memory
            self.last = {key: x for key, x in self.last.items() if key[1] != source}
        seen = self.waiting.pop(layer, [])
        if len(seen) != dense + passes:
            raise UserError(
                f'the residual stream before {layer} is not read in every calibration batch; set '
                "dense_targets to 0, or targets to 'layer'"
            )
        return list(zip(seen[:dense], seen[dense:], strict=False))
