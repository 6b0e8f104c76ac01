"""What a residual stream has lost up to a layer's output: the difference from the dense model."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..common.precision import without_tf32
from .layer_inputs import input_rows, over_ranks, weight_matrix
from .residual_streams import Stream

#: Channels of a smaller scale, relative to the largest, hardly reach the stream: they aren't shifted.
LEAST_SCALE = 1e-3


class Shift(NamedTuple):
    """How a layer's outputs E shall differ from those of its dense weights on its inputs X.

    Attributes:
        product: ``E.T @ X / n``, float32 (outputs, inputs).
        mean: The mean of E, float32 (outputs,).
    """

    product: Tensor
    mean: Tensor


def inverse_scale(stream: Stream, device: torch.device) -> Tensor | float:
    """What turns a change of a stream into one of the output: a factor, or one per channel."""
    if stream.scale is None:
        return 1.0
    scale = stream.scale.to(device)
    seen = scale.abs() > LEAST_SCALE * scale.abs().max()
    return torch.where(seen, 1 / scale, 0)


@without_tf32()
def stream_shift(
    module: nn.Linear,
    stream: Stream,
    inputs: Sequence[Tensor],
    dense_inputs: Sequence[Tensor],
    streams: Sequence[tuple[Tensor, Tensor]],
) -> Shift:
    """The shift with which the stream behind a layer would be the dense model's, over all ranks.

    The stream behind the layer is ``h + s * W x``, in the dense model ``h' + s * W x'``, where s is the
    stream's scale. So the layer's outputs lack ``(h' - h) / s + W (x' - x)``.

    Args:
        module: The layer, with its dense weights W.
        stream: Where its output goes.
        inputs: x, one tensor per batch.
        dense_inputs: x' for the first of these batches.
        streams: (h', h) for the same batches, from :meth:`.StreamReads.take`.
    """
    weight = weight_matrix(module).float()
    product = weight.new_zeros(weight.shape, dtype=torch.float64)
    mean = weight.new_zeros(len(weight), dtype=torch.float64)
    inverse = inverse_scale(stream, weight.device)
    count: float = 0
    for x, dense_x, (dense_h, h) in zip(inputs, dense_inputs, streams, strict=False):
        rows = input_rows(module, x)
        lacking = (dense_h.float() - h.float()).reshape(-1, len(weight)) * inverse
        lacking += (input_rows(module, dense_x) - rows) @ weight.T
        product += lacking.T @ rows
        mean += lacking.sum(0)
        count += len(rows)
    product, _ = over_ranks(product, 0)
    mean, count = over_ranks(mean, count)
    return Shift(*((total / max(count, 1)).float() for total in (product, mean)))
