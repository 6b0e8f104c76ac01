"""A forward pass in which labels flow along with the values."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from .labels import Ids, Labels, Track, is_varied

#: (tracer, function, arguments, keyword arguments, output) -> None: notes tracks of the output.
Rule = Callable[['Tracer', Any, tuple, dict, Any], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: register what ATen's operations of these names do with labels."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


class Shadow:
    """What is known of a tensor.

    Attributes:
        tracks: Its tracks.
        weight: Whether it is a parameter or buffer, or computed from those alone.
    """

    def __init__(self, tracks: Iterable[Track] = (), weight: bool = False):
        self.tracks = [t for t in tracks if is_varied(t.ids)]
        self.weight = weight

    def along(self, dim: int) -> list[Ids]:
        """Labels along a dimension."""
        return [track.ids for track in self.tracks if track.dim == dim]


NOTHING = Shadow()


class Tracer(TorchDispatchMode):
    """Follows labels through all operations of a forward pass.

    Args:
        model: The model; each of its parameters and buffers gets labels.

    Attributes:
        labels: What was found.
        unknown: Operations without a rule that labels ran into.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.labels = Labels()
        self.shadows = WeakTensorKeyDictionary()
        self.unknown: set[str] = set()
        self.suspended = 0
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tracks = [
                    Track(dim, self.labels.of_tensor(name, dim, length))
                    for dim, length in enumerate(tensor.shape)
                    if length > 1
                ]
                self.shadows[tensor] = Shadow(tracks, weight=True)

    def of(self, tensor: Any) -> Shadow:
        """What is known of a tensor."""
        return self.shadows.get(tensor, NOTHING) if isinstance(tensor, Tensor) else NOTHING

    def note(self, tensor: Tensor, tracks: Iterable[Track], weight: bool = False) -> None:
        """Write down the tracks of a result."""
        shadow = Shadow(tracks, weight)
        for track in shadow.tracks:
            assert len(track.ids) == tensor.shape[track.dim], (track.dim, tensor.shape)
        if shadow.tracks or weight:
            self.shadows[tensor] = shadow
        else:
            self.shadows.pop(tensor, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.suspended:
            return out
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if not any(x in self.shadows for x in tensors):
            return out
        name = func._schema.name.removeprefix('aten::')
        known = RULES.get(name) or RULES.get(name.removesuffix('_'))
        if known is None and torch.Tag.pointwise in func.tags:
            known = RULES['pointwise']
        if known is not None:
            known(self, func, args, kwargs, out)
        else:
            self.give_up(name, tensors)
        return out

    def give_up(self, name: str, tensors: Sequence[Tensor]) -> None:
        """An operation without a rule: what flows into it can't go."""
        for tensor in tensors:
            for track in self.of(tensor).tracks:
                self.unknown.add(name)
                self.labels.pin(track.ids, f'no rule for the operation {name}')


def run(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Tracer:
    """Run a model once and follow its labels.

    Args:
        model: In evaluation mode.
        args: Positional arguments of the call.
        kwargs: Keyword arguments.

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
            stack.enter_context(tracer)
            out = model(*args, **kwargs)
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


def output_tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a model's output, without those of a key/value cache."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, 'to_tuple'):
            yield from output_tensors(leaf.to_tuple())


def watch(tracer: Tracer, name: str, module: nn.Module) -> list[Any]:
    """Hooks that take norms as wholes."""
    kind = norm_of(module)

    def enter(module: nn.Module, args: tuple) -> None:
        tracer.suspended += 1

    def leave(module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
        tracer.suspended -= 1
        if not tracer.suspended:
            x = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
            norm_tracks(tracer, name, kind, module, x, out)

    if not kind:
        return []
    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, with_kwargs=True),
    ]


def norm_of(module: nn.Module) -> str:
    """The converter with which a norm over the last dimension counts removed features as zeros."""
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
        return 'SlimLayerNorm'
    own = list(module.parameters(recurse=False))
    plain = len(own) == 1 and own[0].dim() == 1 and not list(module.children())
    return 'SlimRMSNorm' if plain and 'RMSNorm' in type(module).__name__ else ''


def norm_tracks(
    tracer: Tracer, name: str, kind: str, module: nn.Module, x: Tensor, out: Tensor
) -> None:
    """A norm over the last dimension: its labels stay, and need a converter if they go."""
    last = x.dim() - 1
    own = [p for p in module.parameters(recurse=False) if p.dim() == 1]
    vectors = tracer.of(x).along(last)
    joined = tracer.labels.joined([*vectors, *(i for p in own for i in tracer.of(p).along(0))])
    for ids in joined:
        tracer.labels.norms.append((ids, name, kind))
    tracks = [t for t in tracer.of(x).tracks if t.dim != last]
    tracer.note(out, [*tracks, *(Track(last, ids) for ids in joined)])


# Moving elements

VIEWS = ('view', '_unsafe_view', 'unsafe_view', '_reshape_alias', 'reshape')
SPLITS = ('split', 'split_with_sizes', 'chunk', 'unsafe_split', 'unsafe_chunk')
COPIES = ('clone', 'contiguous', 'alias', 'detach', 'lift_fresh')


def spread(track: Track, tensor: Tensor) -> Tensor:
    """A track in the shape of its tensor, without memory of its own."""
    shape = [1] * tensor.dim()
    shape[track.dim] = -1
    return torch.from_numpy(track.ids.astype(np.float64)).view(shape).expand(tensor.shape)


def is_varied_along(values: Tensor, dim: int) -> bool:
    """Whether values differ along a dimension; other dimensions without memory of their own don't count."""
    for other in range(values.dim()):
        if other != dim and values.stride(other) == 0:
            values = values.narrow(other, 0, 1)
    first = values.narrow(dim, 0, 1)
    return not torch.equal(values.narrow(dim, 1, 1), first) or bool((values != first).any())


def gathered(labels: Labels, values: Tensor) -> list[Track]:
    """Tracks of a tensor of labels: one, or where it varies along several dimensions one for each of them."""
    if not values.numel():
        return []
    varied = [
        dim
        for dim in range(values.dim())
        if values.shape[dim] > 1 and values.stride(dim) != 0 and is_varied_along(values, dim)
    ]
    for dim in range(values.dim()):
        if dim not in varied:
            values = values.narrow(dim, 0, 1)
    if not varied:
        return []
    if len(varied) == 1:
        return [Track(varied[0], values.flatten().numpy().astype(np.int64))]
    tracks, ids = [], values.numpy().astype(np.int64)
    for dim in varied:
        rows = np.moveaxis(ids, dim, 0).reshape(ids.shape[dim], -1)
        classes = np.repeat(np.arange(len(rows)), rows.shape[1])
        family = labels.family(classes, rows.flatten())
        if family is not None:
            tracks.append(Track(dim, family))
    if not tracks:
        labels.pin(ids.flatten(), 'its elements are rearranged in a way that no cut follows')
    return tracks


def with_labels(value: Any, replacements: dict[int, Tensor]) -> Any:
    """Arguments of an operation with tensors replaced by their labels, those without by zeros."""

    def replaced(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) in replacements:
            return replacements[id(x)]
        if not x.is_floating_point():
            return x
        return torch.zeros((), dtype=torch.float64).expand(x.shape)

    return tree_map(replaced, value)


@contextmanager
def off(tracer: Tracer) -> Iterator[None]:
    """Run operations on labels unseen."""
    with torch._C.DisableTorchFunctionSubclass():
        tracer.suspended += 1
        try:
            yield
        finally:
            tracer.suspended -= 1


def in_storage(tensor: Tensor, values: Tensor) -> Tensor:
    """Values laid out in memory as a tensor's elements are."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    storage = torch.zeros(size, dtype=values.dtype)
    storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(values)
    return storage


def moved(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """An operation that only moves elements of its first argument: it is run on labels too."""
    source = next(x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
    shadow = tracer.of(source)
    outs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
    found: list[list[Track]] = [[] for _ in outs]
    kwargs = {k: v for k, v in kwargs.items() if k not in ('dtype', 'device', 'layout')}
    name = func._schema.name.removeprefix('aten::').removesuffix('_')
    with off(tracer):
        for track in shadow.tracks:
            values = spread(track, source)
            if name in VIEWS:  # labels lie differently in memory
                results = values.reshape(outs[0].shape)
            elif name in COPIES:
                results = values
            elif name == 'as_strided':
                results = in_storage(source, values).as_strided(*args[1:], **kwargs)
            else:
                labels = {id(source): values}
                results = func(*with_labels(args, labels), **with_labels(kwargs, labels))
            for place, values in enumerate(tree_leaves(results)):
                found[place] += gathered(tracer.labels, values)
    for tensor, tracks in zip(outs, found, strict=True):
        tracer.note(tensor, tracks, shadow.weight)
    if name in SPLITS and len({tensor.shape for tensor in outs}) == 1:
        tie_pieces(tracer, outs)


def tie_pieces(tracer: Tracer, pieces: Sequence[Tensor]) -> None:
    """Equal pieces stay equal: what goes from one goes from all."""
    for dim in range(pieces[0].dim()):
        columns = [tracer.of(piece).along(dim) for piece in pieces]
        for place in range(min(map(len, columns))):
            vectors = [column[place] for column in columns]
            if all(len(np.intersect1d(v, vectors[0])) == 0 for v in vectors[1:]):
                tracer.labels.joined(vectors)
