"""Convolutions, and channels in groups."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..labels import Ids, Labels, Track
from ..tracer import Shadow, Tracer, rule
from .arguments import argument
from .movement import gathered
from .products import contract


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
    within a group. Whole groups go with their part of the first dimension; what goes within each group
    alike goes with a part of the second.
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


def in_groups(labels: Labels, ids: Ids, groups: int) -> list[Ids]:
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
