"""Operations that work element by element."""

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..labels import Track
from ..tracer import Tracer, rule
from .arguments import argument, as_dims, first_tensor
from .reductions import without_mixed


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


@rule('glu')
def gated(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Tensor) -> None:
    """One half of a dimension, times the sigmoid of the other half."""
    x = args[0]
    dim = argument(func, args, kwargs, 'dim', -1) % x.dim()
    tracks = [t for t in tracer.of(x).tracks if t.dim != dim]
    for ids in tracer.of(x).along(dim):
        tracks += [Track(dim, half) for half in tracer.labels.joined(np.split(ids, 2))]
    tracer.note(out, tracks)


@rule('empty_like', 'zeros_like', 'ones_like', 'full_like', 'new_zeros', 'new_empty', 'new_ones',
      'new_full', 'rand_like', 'randn_like', 'eq', 'ne', 'lt', 'le', 'gt', 'ge', 'isnan', 'isinf',
      'is_same_size', 'equal', 'item', '_assert_async', 'nonzero', 'sym_size', 'sym_stride', 'bincount',
      'histc', 'resize', 'is_nonzero', 'bucketize', 'searchsorted', 'set')  # fmt: skip
def unlabelled(tracer: Tracer, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """What comes out holds no values of what goes in, or decisions alone."""
