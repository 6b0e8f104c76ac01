"""What ATen's operations do with labels."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .labels import Ids, Track
from .tracer import NOTHING, RULES, Shadow, Tracer, gathered, moved, off, rule, spread

for _name in (
    '_reshape_alias', '_unsafe_view', 'alias', 'as_strided', 'channel_shuffle', 'clone',
    'constant_pad_nd', 'contiguous', 'detach', 'diagonal', 'expand', 'flip', 'gather', 'im2col', 'index',
    'index_select', 'lift_fresh', 'native_channel_shuffle', 'permute', 'pixel_shuffle',
    'pixel_unshuffle', 'reflection_pad1d', 'reflection_pad2d', 'reflection_pad3d', 'repeat',
    'replication_pad1d', 'replication_pad2d', 'replication_pad3d', 'roll', 'rot90', 'select', 'slice',
    'split', 'split_with_sizes', 'squeeze', 't', 'transpose', 'unbind', 'unfold', 'unsqueeze', 'view',
    'take_along_dim', 'movedim', 'narrow', 'swapaxes', 'repeat_interleave', 'split_copy', 'reshape',
    'chunk', 'unsafe_split', 'unsafe_chunk', 'block_diag',
):  # fmt: skip
    RULES[_name] = moved


def first_tensor(args: Any) -> Tensor:
    """The first tensor among arguments."""
    return next(x for x in tree_leaves(args) if isinstance(x, Tensor))


def as_dims(dims: Any, rank: int) -> list[int]:
    """A dimension, a list of them, or None for all, as non-negative ints."""
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return list(range(rank))
    return [d % rank for d in ([dims] if isinstance(dims, int) else dims)]


def argument(func: Any, args: tuple, kwargs: dict, name: str, default: Any = None) -> Any:
    """An argument of an operation by its name in the schema."""
    for place, entry in enumerate(func._schema.arguments):
        if entry.name == name:
            if place < len(args):
                return args[place]
            return kwargs.get(name, entry.default_value if default is None else default)
    return default


@rule('_to_copy', '_conj', 'tril', 'triu', 'native_dropout', 'fill', 'zero', '_local_scalar_dense',
      'bernoulli', 'view_as_complex', 'view_as_real', 'real', 'imag', '_fake_quantize',
      'masked_fill', 'cumsum', 'cumprod', 'logcumsumexp')  # fmt: skip
def kept(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """The elements of the first argument stay where they are."""
    name = func._schema.name.removeprefix('aten::')
    source = first_tensor(args)
    shadow = tracer.of(source)
    tracks = shadow.tracks
    if name.startswith(('cumsum', 'cumprod', 'logcumsumexp')):
        tracks = without_mixed(tracer, source, as_dims(args[1], source.dim()))
    for tensor in tree_leaves(out):
        if isinstance(tensor, Tensor):
            same = [t for t in tracks if t.dim < tensor.dim() and len(t.ids) == tensor.shape[t.dim]]
            if 'complex' in name or 'real' in name:  # the last dimension, of pairs, comes or goes
                for t in shadow.tracks:
                    if t not in same:
                        tracer.labels.collapse(t.ids)
            tracer.note(tensor, same, shadow.weight)


@rule('pointwise', 'hardswish', 'hardsigmoid', 'hardtanh', 'relu6', 'elu', 'celu', 'mish', '_prelu_kernel',
      'prelu', 'softplus', 'hardshrink', 'softshrink', 'log_sigmoid_forward', 'rrelu_with_noise', 'selu',
      'threshold', 'polar', 'addcmul', 'addcdiv', 'lerp', 'where')  # fmt: skip
def pointwise(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Element by element, after broadcasting."""
    result = next((x for x in tree_leaves(out) if isinstance(x, Tensor)), None)
    if result is None:
        return
    inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    shadows = [tracer.of(x) for x in inputs]
    tracks = []
    name = func._schema.name.removeprefix('aten::').removesuffix('_')
    for dim in range(result.dim()):
        vectors = []
        adding = 0
        for tensor, shadow in zip(inputs, shadows, strict=True):
            own = dim - result.dim() + tensor.dim()
            if own >= 0 and tensor.shape[own] == result.shape[dim]:
                along = shadow.along(own)
                vectors += along
                adding += bool(along) and not shadow.weight
        if vectors:
            ties = len(tracer.labels.ties)
            joined = tracer.labels.joined(vectors)
            tracks += [Track(dim, ids) for ids in joined]
            if adding > 1 and name in ('add', 'sub', 'rsub') and len(tracer.labels.ties) > ties:
                for ids in joined:
                    tracer.labels.mark('added', ids)
    weight = all(s.weight or x.numel() == 1 for s, x in zip(shadows, inputs, strict=True))
    for tensor in tree_leaves(out):
        if isinstance(tensor, Tensor) and tensor.shape == result.shape:
            tracer.note(tensor, tracks, weight)


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


@rule('_weight_norm_interface', '_weight_norm')
def weight_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """A direction, row by row of unit length, times the length of each row."""
    v, g = args[0], args[1]
    dim = argument(func, args, kwargs, 'dim', 0)
    result = first_tensor(out)
    for ids in tracer.of(v).along(dim):  # masked rows keep a direction, of length zero
        tracer.labels.mark('direction', ids)
    joined = tracer.labels.joined([*tracer.of(v).along(dim), *tracer.of(g).along(dim)])
    tracks = [Track(dim, ids) for ids in joined]
    others = [d for d in range(v.dim()) if d != dim]
    tracer.note(result, [*tracks, *(t for t in without_mixed(tracer, v, others) if t.dim != dim)], True)


@rule('glu')
def gated(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """One half of a dimension, times the sigmoid of the other half."""
    x = args[0]
    dim = argument(func, args, kwargs, 'dim', -1) % x.dim()
    tracks = [t for t in tracer.of(x).tracks if t.dim != dim]
    for ids in tracer.of(x).along(dim):
        tracks += [Track(dim, half) for half in tracer.labels.joined(np.split(ids, 2))]
    tracer.note(out, tracks)


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
    tracks = without_mixed(tracer, x, [dim])
    if 'softmax' in func._schema.name:
        for track in tracks:
            tracer.labels.mark('attended', track.ids)
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
        pointwise(tracer, func, args, kwargs, out)
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


@rule('embedding', 'gather_rows')
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


# Contractions


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


@rule('_grouped_mm')
def grouped_product(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """Rows of a matrix, sorted by expert, times the matrix of their expert."""
    x, w = args[0], args[1]
    if x.dim() != 2 or w.dim() != 3:
        tracer.give_up('_grouped_mm', [x, w])
        return
    contract(tracer, tracer.of(x), 1, tracer.of(w), 1)
    tracer.note(out, [Track(1, ids) for ids in tracer.of(w).along(2)])


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


@rule('convolution', '_convolution', 'convolution_overrideable')
def convolution(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """Convolutions of any number of dimensions; grouped, transposed or depthwise."""
    x, weight, bias = args[:3]
    groups = argument(func, args, kwargs, 'groups', 1)
    transposed = argument(func, args, kwargs, 'transposed', False)
    convolved(tracer, x, weight, bias, groups, transposed, out)


def convolved(
    tracer: Tracer, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool,
    out: Tensor,
) -> None:  # fmt: skip
    """Tracks of a convolution's output."""
    labels, shadow = tracer.labels, tracer.of(weight)
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    vectors = list(tracer.of(bias).along(0)) if bias is not None else []
    if groups == 1:
        contract(tracer, tracer.of(x), 1, Shadow(shadow.tracks, True), in_dim)
        vectors = [*shadow.along(out_dim), *vectors]
    else:
        vectors = [*grouped(tracer, x, shadow, groups, transposed, out.shape[1]), *vectors]
    tracks = [t for t in tracer.of(x).tracks if t.dim == 0]
    tracer.note(out, [*tracks, *(Track(1, ids) for ids in labels.joined(vectors))])


def grouped(
    tracer: Tracer, x: Tensor, weight: Shadow, groups: int, transposed: bool, width: int
) -> list[Ids]:
    """Labels of the output channels of a grouped convolution.

    A weight's first dimension runs over all groups, of outputs or, transposed, of inputs; its second is
    within a group. Whole groups go with their part of the first dimension; what goes within each group alike
    goes with a part of the second.
    """
    labels = tracer.labels
    entering = [v for ids in tracer.of(x).along(1) for v in in_groups(labels, ids, groups)]
    across = [v for ids in weight.along(0) for v in in_groups(labels, ids, groups)]
    within = weight.along(1)
    rows, step = x.shape[1] // groups, width // groups
    by_group = [ids[::rows] for ids in entering if is_by_group(ids, groups)]
    for ids in across:
        if is_by_group(ids, groups):
            by_group.append(ids[:: len(ids) // groups])
    found = [np.repeat(ids, step) for ids in labels.joined(by_group)]
    inner = [ids[:rows] for ids in entering if not is_by_group(ids, groups)]
    inner_weight = [ids[: len(ids) // groups] for ids in across if not is_by_group(ids, groups)]
    read, made = (inner_weight, within) if transposed else (within, inner_weight)
    for ids in inner:
        for columns in read:
            labels.consume(ids, columns)
    if step > 1:
        found += [np.tile(ids, groups) for ids in made]
    return found


def in_groups(labels: Any, ids: Ids, groups: int) -> list[Ids]:
    """Labels along a dimension taken as groups x channels: the labels of groups, and those within."""
    if len(ids) == groups:
        return [ids]
    values = torch.from_numpy(ids.astype(np.float64)).view(groups, -1)
    found = []
    for track in gathered(labels, values):
        shape = (-1, 1) if track.dim == 0 else (1, -1)
        found.append(np.broadcast_to(track.ids.reshape(shape), values.shape).reshape(-1).copy())
    return found


def is_by_group(ids: Ids, groups: int) -> bool:
    """Whether a label belongs to each group as a whole."""
    rows = ids.reshape(groups, -1)
    return bool((rows == rows[:, :1]).all())


@rule('native_batch_norm', '_native_batch_norm_legit_no_training', '_native_batch_norm_legit',
      'cudnn_batch_norm', '_batch_norm_no_update', '_batch_norm_with_update', 'batch_norm')  # fmt: skip
def batch_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Each channel by itself."""
    result = first_tensor(out)
    vectors = list(tracer.of(args[0]).along(1))
    for tensor in args[1:5]:
        if isinstance(tensor, Tensor) and tensor.dim() == 1:
            vectors += tracer.of(tensor).along(0)
    training = bool(argument(func, args, kwargs, 'training', False))
    source = tracer.of(args[0])
    others = [t for t in source.tracks if t.dim != 1]
    if training:  # statistics of this input: only channels stay apart
        for track in others:
            tracer.labels.collapse(track.ids)
        others = []
    tracks = [*others, *(Track(1, ids) for ids in tracer.labels.joined(vectors))]
    tracer.note(result, tracks, source.weight)


@rule('native_layer_norm', '_fused_rms_norm', 'rms_norm')
def layer_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Over the last dimensions, all of whose elements are mixed."""
    x, shape = args[0], args[1]
    result = first_tensor(out)
    dims = range(x.dim() - len(shape), x.dim())
    tracks = without_mixed(tracer, x, dims)
    for tensor in args[2:4]:
        if isinstance(tensor, Tensor):
            for track in tracer.of(tensor).tracks:
                tracer.labels.collapse(track.ids)
                for own in tracer.of(x).along(dims[track.dim]):
                    tracer.labels.joined([own, track.ids])
    tracer.note(result, tracks)


@rule('native_group_norm')
def group_norm(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Within groups of channels all elements are mixed."""
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    labels, result = tracer.labels, first_tensor(out)
    vectors = list(tracer.of(x).along(1))
    for tensor in (weight, bias):
        vectors += tracer.of(tensor).along(0) if isinstance(tensor, Tensor) else []
    found = []
    for ids in labels.joined(vectors):
        for part in in_groups(labels, ids, groups):
            if is_by_group(part, groups):
                found.append(Track(1, part))
            else:
                labels.collapse(part)
    tracer.note(result, [*(t for t in tracer.of(x).tracks if t.dim == 0), *found])


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


@rule('empty_like', 'zeros_like', 'ones_like', 'full_like', 'new_zeros', 'new_empty', 'new_ones', 'new_full',
      'rand_like', 'randn_like', 'eq', 'ne', 'lt', 'le', 'gt', 'ge', 'isnan', 'isinf', 'is_same_size',
      'equal', 'item', '_assert_async', 'nonzero', 'sym_size', 'sym_stride', 'bincount', 'histc',
      'resize', 'is_nonzero', 'bucketize', 'searchsorted', 'set')  # fmt: skip
def unlabelled(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """What comes out holds no values of what goes in, or decisions alone."""


_ = NOTHING
