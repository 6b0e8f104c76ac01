"""Operations that mix all elements along a dimension."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..labels import Track
from ..tracer import RULES, Tracer, rule
from .arguments import argument, as_dims, first_tensor


def without_mixed(tracer: Tracer, tensor: Tensor, dims: Iterable[int]) -> list[Track]:
    """The tracks of a tensor along other dimensions; labels along these are mixed."""
    dims = set(dims)
    rest = []
    for track in tracer.of(tensor).tracks:
        if track.dim in dims:
            tracer.labels.collapse(track.ids)
        else:
            rest.append(track)
    return rest


@rule(
    '_softmax', '_log_softmax', 'softmax', 'log_softmax', 'sort', 'topk', 'argsort', '_safe_softmax'
)
def normalised(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Along a dimension each element depends on all others."""
    x = args[0]
    dim = argument(func, args, kwargs, 'dim', -1) % x.dim()
    mixed = tracer.of(x).along(dim)
    tracks = without_mixed(tracer, x, [dim])
    if 'softmax' in func._schema.name:
        for track in tracks:
            tracer.labels.mark('attended', track.ids)
        tracks += [Track(dim, ids) for ids in mixed]  # all tied, but they may be ranked yet
        tracer.labels.rankings += [
            (ids, 1) for ids in mixed
        ]  # or all be taken, each with its share
    if 'topk' in func._schema.name:
        count = int(argument(func, args, kwargs, 'k'))
        tracer.labels.rankings += [(ids, count) for ids in mixed]
    for tensor in tree_leaves(out):
        if isinstance(tensor, Tensor):
            fit = [t for t in tracks if tensor.shape[t.dim] == len(t.ids)]
            tracer.note(tensor, fit, tracer.of(x).weight)


@rule('mean', 'sum', 'amax', 'amin', 'max', 'min', 'prod', 'var', 'std', 'var_mean', 'std_mean', 'norm',
      'linalg_vector_norm', 'logsumexp', 'any', 'all', 'argmax', 'argmin', 'nansum', 'median', 'aminmax',
      'count_nonzero', 'cummax')  # fmt: skip
def reduced(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Dimensions are reduced to a number."""
    if len(args) > 1 and isinstance(args[1], Tensor):  # the larger of two
        RULES['pointwise'](tracer, func, args, kwargs, out)
        return
    x = args[0]
    dims = set(as_dims(argument(func, args, kwargs, 'dim'), x.dim()))
    tracks = without_mixed(tracer, x, dims)
    for tensor in tree_leaves(out):
        if not isinstance(tensor, Tensor):
            continue
        if tensor.dim() == x.dim():
            left = tracks
        else:
            left = [Track(t.dim - sum(d < t.dim for d in dims), t.ids) for t in tracks]
        tracer.note(tensor, left, tracer.of(x).weight)


@rule('linalg_solve_triangular', 'linalg_inv_ex', 'linalg_cholesky_ex', 'triangular_solve')
def solved(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Matrices, each of which is mixed; batches of them stay apart."""
    tensors = [x for x in args if isinstance(x, Tensor)]
    rank = tensors[0].dim()
    tracks = []
    for x in tensors:
        without_mixed(tracer, x, (rank - 2, rank - 1))
    for d in range(rank - 2):
        joined = tracer.labels.joined([ids for x in tensors for ids in tracer.of(x).along(d)])
        tracks += [Track(d, ids) for ids in joined]
    for tensor in tree_leaves(out):
        if isinstance(tensor, Tensor) and tensor.dim() == rank:
            tracer.note(tensor, tracks)


@rule('max_pool2d_with_indices', 'max_pool3d_with_indices', 'avg_pool2d', 'avg_pool3d', 'avg_pool1d',
      '_adaptive_avg_pool2d', '_adaptive_avg_pool3d', 'adaptive_avg_pool1d', 'adaptive_max_pool2d',
      'adaptive_max_pool3d', 'upsample_nearest2d', 'upsample_bilinear2d', 'upsample_bicubic2d',
      '_upsample_bilinear2d_aa', '_upsample_bicubic2d_aa', 'upsample_nearest1d', 'upsample_linear1d',
      'upsample_nearest3d', 'upsample_trilinear3d', '_upsample_nearest_exact2d', 'grid_sampler_2d',
      'grid_sampler_3d', 'mkldnn_max_pool2d', 'max_pool1d', 'max_pool2d')  # fmt: skip
def spatial(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Positions are mixed, channels aren't."""
    x, result = args[0], first_tensor(out)
    spatial_dims = 2 if '2d' in func._schema.name else 3 if '3d' in func._schema.name else 1
    if 'grid_sampler' in func._schema.name:
        without_mixed(tracer, args[1], range(args[1].dim()))
    first = x.dim() - spatial_dims
    tracks = without_mixed(tracer, x, range(first, x.dim()))
    for tensor in tree_leaves(out):
        if isinstance(tensor, Tensor):
            tracer.note(tensor, tracks, tracer.of(x).weight)
    del result
