"""Linear and convolution layers as matrix products: weight matrix, input rows and their Gram matrices."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.distributed import sum_over_ranks
from ..common.errors import UserError
from ..common.precision import without_tf32
from ..structure.prunable_weights import is_transposed

#: Rows of a Gram matrix that are computed by one matrix product.
BLOCK = 192


def check_layer(name: str, module: nn.Module) -> None:
    """Raise :class:`UserError` unless ``module`` is a linear layer or an ungrouped 2-D convolution."""
    plain = isinstance(module, nn.Linear) or is_transposed(module)
    if not plain and not (isinstance(module, nn.Conv2d) and module.groups == 1):
        raise UserError(
            f'{name} is a {type(module).__name__}; from their inputs only linear layers and 2-D '
            'convolutions of one group can be pruned: name it in prune_cfg.exclude, or use Magnitude'
        )


def weight_matrix(module: nn.Module) -> Tensor:
    """The weight as a detached matrix (outputs, inputs); a view of it."""
    return to_matrix(module, module.weight.detach())


def to_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """What has the shape of a layer's weight as (outputs, inputs)."""
    return weight.T if is_transposed(module) else weight.flatten(1)


def from_matrix(module: nn.Module, matrix: Tensor) -> Tensor:
    """The inverse of :func:`to_matrix`."""
    return matrix.T if is_transposed(module) else matrix.view(module.weight.shape)


def row_layout(module: nn.Module) -> Any:
    """What determines :func:`input_rows` besides the input: equal layouts give equal rows."""
    if not isinstance(module, nn.Conv2d):
        return None
    return module.kernel_size, module.stride, module.dilation, module.padding, module.padding_mode


def input_rows(module: nn.Module, x: Tensor) -> Tensor:
    """The input as float32 (rows, inputs): the layer computes ``rows @ weight_matrix.T`` (plus bias).

    A row is a token of a linear layer, or a window of a convolution.
    """
    x = x.detach().float()
    if isinstance(module, nn.Linear) or is_transposed(module):
        return x.reshape(-1, x.shape[-1])
    # The padding of the convolution itself, in any padding mode.
    mode = 'constant' if module.padding_mode == 'zeros' else module.padding_mode
    x = F.pad(x.reshape(-1, *x.shape[-3:]), module._reversed_padding_repeated_twice, mode)
    patches = F.unfold(x, module.kernel_size, module.dilation, stride=module.stride)
    return patches.movedim(1, 2).flatten(0, 1)


@without_tf32()
def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add ``rows.T @ rows`` to ``total``, in place, except below its diagonal blocks (see :func:`mirror`).

    Args:
        total: (inputs, inputs); in float64, so that rounding hides the order of the batches and with it
            the number of ranks.
        rows: (rows, inputs), float32.
    """
    for start in range(0, len(total), BLOCK):
        end = start + BLOCK
        total[start:end, start:].add_(rows[:, start:end].T @ rows[:, start:])


def mirror(total: Tensor) -> Tensor:
    """Fill in, in place, the part below the diagonal blocks that :func:`add_gram` leaves out."""
    for end in range(BLOCK, len(total), BLOCK):
        total[end:, end - BLOCK : end] = total[end - BLOCK : end, end:].T
    return total


def input_gram(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Gram matrix of a layer's inputs, summed over all rows and ranks, and the number of rows.

    Args:
        module: The layer.
        inputs: Its inputs, one tensor per batch.

    Returns:
        ``X.T @ X``, float32 (inputs, inputs), and the number of rows of X.
    """
    width = weight_matrix(module).shape[1]
    total, count = module.weight.new_zeros(width, width, dtype=torch.float64), 0
    for x in inputs:
        rows = input_rows(module, x)
        add_gram(total, rows)
        count += len(rows)
    total, count_of_all = over_ranks(total, count)
    return mirror(total.float()), count_of_all


@without_tf32()
def input_drift(module: nn.Module, inputs: Sequence[Tensor], dense: Sequence[Tensor]) -> Tensor:
    """``(X' - X).T @ X`` summed over all rows and ranks: how inputs differ from those in the dense model.

    Args:
        module: The layer.
        inputs: X, its inputs, one tensor per batch.
        dense: X', its inputs in the dense model, for the same batches.

    Returns:
        float32 (inputs, inputs).
    """
    width = weight_matrix(module).shape[1]
    total = module.weight.new_zeros(width, width, dtype=torch.float64)
    for x, dense_x in zip(inputs, dense, strict=True):
        rows = input_rows(module, x)
        total.add_((input_rows(module, dense_x) - rows).T @ rows)
    return over_ranks(total, 0)[0].float()


def over_ranks(total: Tensor, count: float) -> tuple[Tensor, float]:
    """Sum a tensor (in place) and a count over all ranks."""
    rows = torch.tensor(float(count), dtype=torch.float64, device=total.device)
    sum_over_ranks({'total': total, 'rows': rows})
    return total, float(rows)


def check_inputs(statistic: Tensor, name: str) -> None:
    """Raise :class:`UserError` if a statistic of the inputs of layer ``name`` is NaN or infinite."""
    if not bool(torch.isfinite(statistic).all()):
        raise UserError(
            f'{name} reads NaN or infinite numbers in the calibration data; check that data, and the '
            'weights of the layers before it'
        )
