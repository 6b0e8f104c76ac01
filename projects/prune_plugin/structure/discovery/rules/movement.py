"""Operations that only move elements: they are run on labels too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..labels import Labels, Track
from ..tracer import Tracer, rule
from .arguments import argument
from .reductions import without_mixed

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
    """Tracks of a tensor of labels: one for each dimension along which it varies."""
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
            return x.cpu()  # labels lie there
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


@rule('_reshape_alias', '_unsafe_view', 'alias', 'as_strided', 'channel_shuffle', 'clone',
    'contiguous', 'detach', 'diagonal', 'expand', 'flip', 'gather', 'im2col', 'index',
    'index_select', 'lift_fresh', 'native_channel_shuffle', 'permute', 'pixel_shuffle',
    'pixel_unshuffle', 'reflection_pad1d', 'reflection_pad2d', 'reflection_pad3d', 'repeat',
    'replication_pad1d', 'replication_pad2d', 'replication_pad3d', 'roll', 'rot90', 'select', 'slice',
    'split', 'split_with_sizes', 'squeeze', 't', 'transpose', 'unbind', 'unfold', 'unsqueeze', 'view',
    'take_along_dim', 'movedim', 'narrow', 'swapaxes', 'repeat_interleave', 'split_copy', 'reshape',
    'chunk', 'unsafe_split', 'unsafe_chunk', 'block_diag')  # fmt: skip
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


@rule('constant_pad_nd')
def padded(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """What is put around a channel goes with it; what is put beside the channels belongs to none."""
    x, pads = args[0], argument(func, args, kwargs, 'pad')
    shadow, tracks = tracer.of(x), []
    for track in shadow.tracks:
        first = 2 * (x.dim() - 1 - track.dim)
        before, after = [*pads, *[0] * 2 * x.dim()][first : first + 2]
        ids = track.ids[max(-before, 0) : len(track.ids) - max(-after, 0)]
        tracks.append(Track(track.dim, np.pad(ids, (max(before, 0), max(after, 0)))))
    tracer.note(out, tracks, shadow.weight)


@rule('col2im')
def folded(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """Overlapping patches are added: where they have the same label the sum keeps it."""
    x = args[0]
    tracks = []
    with off(tracer):
        for track in tracer.of(x).tracks:
            values = spread(track, x).contiguous()
            mean = func(values, *args[1:], **kwargs) / func(
                torch.ones_like(values), *args[1:], **kwargs
            )
            if bool((mean != mean.round()).any()):
                tracer.labels.collapse(track.ids)
            else:
                tracks += gathered(tracer.labels, mean)
    tracer.note(out, tracks)


@rule('embedding')
def embedding(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Rows of a table."""
    table = args[0]
    tracks = without_mixed(tracer, table, [0])
    tracer.note(out, [Track(out.dim() - 1, t.ids) for t in tracks])


@rule('cat', 'stack', 'hstack', 'vstack')
def concatenated(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Along one dimension one after the other; index by index along the others."""
    tensors = [x for x in args[0] if x.dim() == args[0][-1].dim()]
    dim = argument(func, args, kwargs, 'dim', 0) % out.dim()
    stacked = 'stack' in func._schema.name
    tracks: list[Track] = []
    for d in range(out.dim()):
        if stacked and d == dim:
            continue
        own = d - (stacked and d > dim)
        if d != dim:
            vectors = [ids for x in tensors for ids in tracer.of(x).along(own)]
            tracks += [Track(d, ids) for ids in tracer.labels.joined(vectors)]
            continue
        columns = [tracer.of(x).along(own) for x in tensors]
        for place in range(max(map(len, columns))):
            parts = [
                column[place] if place < len(column) else np.zeros(x.shape[own], np.int64)
                for x, column in zip(tensors, columns, strict=True)
            ]
            tracks.append(Track(d, np.concatenate(parts)))
    tracer.note(out, tracks, all(tracer.of(x).weight for x in tensors))
