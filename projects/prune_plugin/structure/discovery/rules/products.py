"""Matrix products."""

from typing import Any

from torch import Tensor

from ..labels import Track
from ..tracer import Shadow, Tracer, rule


def contract(tracer: Tracer, x: Shadow, x_dim: int, w: Shadow, w_dim: int) -> None:
    """Sum over a dimension of ``x`` times one of ``w``."""
    labels = tracer.labels
    here, there = x.along(x_dim), w.along(w_dim)
    if w.weight and not x.weight and there:
        for ids in here:
            for columns in there:
                labels.consume(ids, columns)
    elif x.weight and not w.weight and here:
        contract(tracer, w, w_dim, x, x_dim)
    elif x.weight and w.weight:
        labels.joined([*here, *there])
    else:
        for ids in (*here, *there):
            labels.collapse(ids)


@rule('mm', 'bmm', 'mv', 'dot')
def product(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """Matrix products, in batches or not."""
    multiplied(tracer, args[0], args[1], out)


@rule('addmm', 'baddbmm', 'addmv')
def product_sum(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """A matrix product on top of something."""
    multiplied(tracer, args[1], args[2], out)
    bias = args[0]
    tracks = list(tracer.of(out).tracks)
    joined = []
    for d in range(out.dim()):
        own = d - out.dim() + bias.dim()
        vectors = [t.ids for t in tracks if t.dim == d]
        if own >= 0 and bias.shape[own] == out.shape[d]:
            vectors += tracer.of(bias).along(own)
        joined += [Track(d, ids) for ids in tracer.labels.joined(vectors)]
    tracer.note(out, joined)


def multiplied(tracer: Tracer, first: Tensor, second: Tensor, out: Tensor) -> None:
    """``out = first @ second``."""
    a, b = tracer.of(first), tracer.of(second)
    batch = first.dim() - 2 if first.dim() > 2 else 0
    inner_a, inner_b = first.dim() - 1, max(second.dim() - 2, 0)
    contract(tracer, a, inner_a, b, inner_b)
    tracks = []
    for d in range(batch):
        joined = tracer.labels.joined([*a.along(d), *b.along(d)])
        tracks += [Track(d, ids) for ids in joined]
        if not a.weight and not b.weight:
            for ids in joined:
                tracer.labels.mark('attended', ids)
    if first.dim() > 1:
        tracks += [Track(batch, ids) for ids in a.along(batch)]
    if second.dim() > 1:
        tracks += [Track(out.dim() - 1, ids) for ids in b.along(second.dim() - 1)]
    tracer.note(out, tracks, a.weight and b.weight)


@rule('_grouped_mm')
def grouped_product(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """Rows of a matrix, sorted by expert, times the matrix of their expert."""
    x, w = args[0], args[1]
    if x.dim() != 2 or w.dim() != 3:
        tracer.give_up('_grouped_mm', [x, w])
        return
    contract(tracer, tracer.of(x), 1, tracer.of(w), 1)
    tracer.note(out, [Track(1, ids) for ids in tracer.of(w).along(2)])
