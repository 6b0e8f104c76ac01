"""Deformable sampling: bilinear look-ups at free places of feature maps, summed with weights.

Deformable DETR (https://arxiv.org/abs/2010.04159), equation 3. Where mmcv was compiled for the
device at hand its operator does the work. Elsewhere mmcv's PyTorch form does while gradients are
kept, and otherwise one ``embedding_bag``: the four corners of every sampling point are rows of a
table, the product of attention and bilinear weight is the row's weight. That reads each corner once
and keeps nothing per channel, which saves time and memory.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from mmcv.ops import get_compiling_cuda_version
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from mmengine.logging import print_log
from torch import Tensor

from ..on_device import constant

#: Corners that one ``embedding_bag`` call looks up at most.
CHUNK = 1 << 23


@dataclass
class Rows:
    """Which feature map each row of a list of queries looks at, if that isn't all at all.

    Attributes:
        batch: ``(R,)`` index of the map, ascending.
        slot: ``(R,)`` number of the row among those of its map.
        longest: The largest number of rows of one map.
    """

    batch: Tensor
    slot: Tensor
    longest: int


def deformable_sampling(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    rows: Rows | None = None,
) -> Tensor:
    """Sum the features at ``locations``, weighted.

    Args:
        value: ``(B, n, heads, head_dim)`` features, the levels one after the other.
        shapes: Height and width of each level.
        locations: ``(B, Q, heads, levels, points, 2)``, x and y in [0, 1]; outside is zero.
            With ``rows``: ``(R, heads, levels, points, 2)``.
        weights: As ``locations`` without the last dimension.
        rows: The map of each row, if not every map has Q.

    Returns:
        ``(B, Q, heads * head_dim)``, or ``(R, heads * head_dim)`` with ``rows``, of value's type.
    """
    exact = torch.promote_types(value.dtype, torch.float32)  # sums of many terms: no half floats
    with torch.autocast(value.device.type, enabled=False):
        tensors = (x.to(exact) for x in (value, locations, weights))
        exported = torch.compiler.is_compiling()  # as grid_sample, which other programs know
        use_mmcv = exported or torch.is_grad_enabled() or has_operator(value.device.type)
        sample = by_mmcv if use_mmcv else by_table
        return sample(*tensors, shapes, rows).to(value.dtype)


@cache
def has_operator(device_type: str) -> bool:
    """Whether mmcv's operator was compiled for this kind of device; on GPUs without it, warn once."""
    if device_type != 'cuda':
        return False
    compiled = get_compiling_cuda_version() != 'not available'
    if not compiled:
        print_log(
            "mmcv has no CUDA operators here, so VAD's deformable attention runs in PyTorch, which is "
            'slower and takes more memory; build mmcv with CUDA (MMCV_WITH_OPS=1, FORCE_CUDA=1)',
            'current',
            logging.WARNING,
        )
    return compiled


def by_mmcv(
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    shapes: Sequence[tuple[int, int]],
    rows: Rows | None,
) -> Tensor:
    """:func:`deformable_sampling` with mmcv; rows are padded to the longest map's."""
    if rows is not None:
        longest = max(rows.longest, 1)  # the operator can't be called for nothing
        padded = locations.new_zeros(len(value), longest, *locations.shape[1:])
        locations = padded.index_put((rows.batch, rows.slot), locations)
        padded = weights.new_zeros(len(value), longest, *weights.shape[1:])
        weights = padded.index_put((rows.batch, rows.slot), weights)
    if has_operator(value.device.type):
        sizes = constant(tuple(map(tuple, shapes)), value, torch.long)
        starts = constant(tuple(level_starts(shapes)), value, torch.long)
        maps = len(value)  # the operator takes them in equal portions of up to 64
        portion = next(n for n in range(min(maps, 64), 0, -1) if maps % n == 0)
        tensors = (x.contiguous() for x in (locations, weights))
        out = MultiScaleDeformableAttnFunction.apply(
            value.contiguous(), sizes, starts, *tensors, portion
        )
    else:
        # The sizes as numbers: of a tensor on a GPU it would ask one by one.
        out = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    return out if rows is None else out[rows.batch, rows.slot]


def by_table(
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    shapes: Sequence[tuple[int, int]],
    rows: Rows | None,
) -> Tensor:
    """:func:`deformable_sampling` by ``embedding_bag``, in pieces."""
    batch, count, heads, head_dim = value.shape
    if rows is None:
        shape = locations.shape[:2]
        owner = torch.arange(batch, device=value.device).repeat_interleave(shape[1])
        locations, weights = locations.flatten(0, 1), weights.flatten(0, 1)
    else:
        shape, owner = locations.shape[:1], rows.batch
    table = value.reshape(batch * count * heads, head_dim)
    size = max(1, CHUNK // (4 * weights.shape[1:].numel()))
    pieces = [
        look_up(table, (count, heads), shapes, *piece)
        for piece in zip(owner.split(size), locations.split(size), weights.split(size), strict=True)
    ]
    return torch.cat(pieces).view(*shape, heads * head_dim)


def look_up(
    table: Tensor,
    layout: tuple[int, int],
    shapes: Sequence[tuple[int, int]],
    owner: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    """One ``embedding_bag`` call.

    Args:
        table: ``(B * n * heads, head_dim)``.
        layout: n and heads.
        shapes: Height and width of each level.
        owner: ``(R,)`` map of each row.
        locations: ``(R, heads, levels, points, 2)``.
        weights: ``(R, heads, levels, points)``.

    Returns:
        ``(R * heads, head_dim)``.
    """
    count, heads = layout
    head = torch.arange(heads, device=table.device)[None, :, None]
    indices, factors = [], []
    for level, ((height, width), start) in enumerate(
        zip(shapes, level_starts(shapes), strict=True)
    ):
        place = locations[:, :, level]
        x, y = to_pixels(place[..., 0], width), to_pixels(place[..., 1], height)
        left, top = x.floor(), y.floor()
        right_share, bottom_share = x - left, y - top
        left, top = left.clamp(-2, width).long(), top.clamp(-2, height).long()
        first = (owner * count + start)[:, None, None]
        for row, row_share in ((top, 1 - bottom_share), (top + 1, bottom_share)):
            for column, column_share in ((left, 1 - right_share), (left + 1, right_share)):
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                cell = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
                indices.append((first + cell) * heads + head)
                factors.append(weights[:, :, level] * row_share * column_share * inside)
    indices = torch.stack(indices, -1).flatten(0, 1).flatten(1)
    factors = torch.stack(factors, -1).flatten(0, 1).flatten(1)
    return F.embedding_bag(indices, table, per_sample_weights=factors, mode='sum')


def to_pixels(place: Tensor, size: int) -> Tensor:
    """Continuous pixel coordinates, rounded as ``grid_sample(align_corners=False)`` does."""
    return ((2 * place - 1 + 1) * size - 1) / 2


def level_starts(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """The index of each level's first cell."""
    starts = [0]
    for height, width in shapes[:-1]:
        starts.append(starts[-1] + height * width)
    return starts
