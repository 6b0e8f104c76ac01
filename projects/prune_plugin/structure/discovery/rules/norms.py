"""Norms, as operations and as modules."""

from typing import Any

import torch
from torch import Tensor, nn

from ..labels import Track
from ..tracer import Tracer, rule
from .arguments import argument, first_tensor
from .convolutions import in_groups, is_by_group
from .reductions import without_mixed


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
    tracer.note(
        result, [*tracks, *(t for t in without_mixed(tracer, v, others) if t.dim != dim)], True
    )


def norm_of(module: nn.Module) -> str:
    """The converter with which a norm over the last dimension counts removed features as zeros."""
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return 'SlimLayerNorm' if is_plain_layer_norm(module) else ''
    own = list(module.parameters(recurse=False))
    plain = len(own) == 1 and own[0].dim() == 1 and not list(module.children())
    return 'SlimRMSNorm' if plain and 'RMSNorm' in type(module).__name__ else ''


@torch.no_grad()
def is_plain_layer_norm(module: nn.LayerNorm) -> bool:
    """Whether a layer norm, or a subclass with a forward pass of its own, normalises the last dimension."""
    if type(module).forward is nn.LayerNorm.forward:
        return True
    parameter = next(module.parameters(recurse=False), None)
    like = torch.empty(0) if parameter is None else parameter
    (width,) = module.normalized_shape
    x = torch.linspace(-9, 9, 2 * (width + 1) * width).sin().view(2, width + 1, width).to(like)
    try:
        return torch.allclose(module(x), nn.LayerNorm.forward(module, x), rtol=1e-3, atol=1e-4)
    except Exception:  # whatever its class raises for other dimensions
        return False


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
