"""What weight-level methods see of a layer: a matrix of weights, and rows of inputs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.distributed import sum_over_ranks
from ..common.errors import UserError

#: Columns of a Gram matrix that are computed together.
BLOCK = 192


def check_layer(name: str, module: nn.Module) -> None:
    """Raise :class:`UserError` unless ``module`` multiplies rows of inputs by its weight."""
    plain = isinstance(module, nn.Linear)
    if not plain and not (isinstance(module, nn.Conv2d) and module.groups == 1):
        raise UserError(
            f'{name} is a {type(module).__name__}; from their inputs only linear layers and 2-D '
            'convolutions of one group can be pruned: name it in prune_cfg.exclude, or use Magnitude'
        )


def weight_matrix(module: nn.Module) -> Tensor:
    """The weight as (outputs, inputs), to be read."""
    return module.weight.detach().flatten(1)


def reading(module: nn.Module) -> Any:
    """How rows are made of an input; layers that agree make the same rows of the same input."""
    if not isinstance(module, nn.Conv2d):
        return None
    return module.kernel_size, module.stride, module.dilation, module.padding, module.padding_mode


def input_rows(module: nn.Module, x: Tensor) -> Tensor:
    """The input as float32 (rows, inputs): each row is multiplied by :func:`weight_matrix`."""
    x = x.detach().float()
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    # As the convolution pads by itself, whatever the mode.
    mode = 'constant' if module.padding_mode == 'zeros' else module.padding_mode
    x = F.pad(x.reshape(-1, *x.shape[-3:]), module._reversed_padding_repeated_twice, mode)
    patches = F.unfold(x, module.kernel_size, module.dilation, stride=module.stride)
    return patches.movedim(1, 2).flatten(0, 1)


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add ``rows.T @ rows`` to ``total`` in place, but what is below its diagonal blocks.

    Args:
        total: (inputs, inputs). In float64, the order of adding batches, and so the number of
            ranks, leaves no trace.
        rows: (rows, inputs), float32.
    """
    for start in range(0, len(total), BLOCK):
        end = start + BLOCK
        total[start:end, start:].add_(rows[:, start:end].T @ rows[:, start:])


def mirror(total: Tensor) -> Tensor:
    """What :func:`add_gram` has left out, filled in; in place."""
    for end in range(BLOCK, len(total), BLOCK):
        total[end:, end - BLOCK : end] = total[end - BLOCK : end, end:].T
    return total


def input_gram(module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, float]:
    """Sum over all rows and ranks of the inputs' outer products, and the number of rows.

    Returns:
        float32 (inputs, inputs), rows.
    """
    width = weight_matrix(module).shape[1]
    total, count = module.weight.new_zeros(width, width, dtype=torch.float64), 0
    for x in inputs:
        rows = input_rows(module, x)
        add_gram(total, rows)
        count += len(rows)
    total, rows = over_ranks(total, count)
    return mirror(total.float()), rows


def input_drift(module: nn.Module, inputs: list[Tensor], dense: list[Tensor]) -> Tensor:
    """Sum over all rows and ranks of what was, less what is, times what is: (dense - x).T @ x.

    Args:
        module: The layer.
        inputs: What it reads, one tensor per batch.
        dense: What it read before anything was changed.

    Returns:
        float32 (inputs, inputs).
    """
    width = weight_matrix(module).shape[1]
    total = module.weight.new_zeros(width, width, dtype=torch.float64)
    for x, was in zip(inputs, dense, strict=True):
        rows = input_rows(module, x)
        total.add_((input_rows(module, was) - rows).T @ rows)
    return over_ranks(total, 0)[0].float()


def over_ranks(total: Tensor, count: float) -> tuple[Tensor, float]:
    """Both summed over all ranks."""
    rows = torch.tensor(float(count), dtype=torch.float64, device=total.device)
    sum_over_ranks({'total': total, 'rows': rows})
    return total, float(rows)


def check_inputs(statistic: Tensor, name: str) -> None:
    """Raise :class:`UserError` unless the statistic of the layer ``name`` is finite."""
    if not bool(torch.isfinite(statistic).all()):
        raise UserError(
            f'{name} reads NaN or infinite numbers in the calibration data; check that data, and the '
            'weights of the layers before it'
        )
