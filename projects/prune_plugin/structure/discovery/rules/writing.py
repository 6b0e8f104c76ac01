"""Operations that write into a tensor, or into a view of one."""

from typing import Any

import torch
from torch import Tensor

from ..labels import Track
from ..tracer import Tracer, rule
from .arguments import argument
from .movement import gathered, off, spread


@rule('copy', 'index_put', '_index_put_impl', 'scatter', 'scatter_add', 'scatter_reduce', 'index_add',
      'index_copy', 'slice_scatter', 'select_scatter', 'masked_scatter', 'index_fill')  # fmt: skip
def written(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Elements are written into a tensor, or into a view of one."""
    name = func._schema.name.removeprefix('aten::').removesuffix('_')
    target = args[0]
    if name != 'copy':
        source = argument(func, args, kwargs, 'source', argument(func, args, kwargs, 'src', None))
        source = source if source is not None else argument(func, args, kwargs, 'values')
        tracks = list(tracer.of(target).tracks)
        if isinstance(source, Tensor):
            for d in range(target.dim()):
                own = d - target.dim() + source.dim()
                if own < 0 or source.shape[own] != target.shape[d]:
                    continue
                joined = tracer.labels.joined(
                    [*(t.ids for t in tracks if t.dim == d), *tracer.of(source).along(own)]
                )
                tracks = [t for t in tracks if t.dim != d] + [Track(d, ids) for ids in joined]
        tracer.note(out, tracks)
        if out is not target and func._schema.name.endswith('_'):
            tracer.note(target, tracks)
        return
    source = args[1]
    shift = target.dim() - source.dim()
    tracks = [
        Track(t.dim + shift, t.ids)
        for t in tracer.of(source).tracks
        if source.shape[t.dim] == target.shape[t.dim + shift]
    ]
    tracer.note(target, tracks)
    if target._base is not None:
        write_through(tracer, target, tracks)


def write_through(tracer: Tracer, view: Tensor, tracks: list[Track]) -> None:
    """Labels written into a view reach the tensor that it is a view of."""
    base = view._base
    assert base is not None
    before = list(tracer.of(base).tracks)
    found: list[Track] = []
    size = base.untyped_storage().nbytes() // base.element_size()
    with off(tracer):
        for track in tracks:
            storage = torch.zeros(size, dtype=torch.float64)
            whole = storage.as_strided(base.shape, base.stride(), base.storage_offset())
            part = storage.as_strided(view.shape, view.stride(), view.storage_offset())
            part.copy_(spread(track, view))
            written = gathered(tracer.labels, whole)
            for old in [b for b in before if b.dim in {t.dim for t in written}][:1]:
                whole.copy_(spread(old, base))
                part.copy_(spread(track, view))
                written = gathered(tracer.labels, whole)
                before.remove(old)
            found += written
    tracer.note(base, [*before, *found])
