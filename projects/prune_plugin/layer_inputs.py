"""What weight-level methods see of a layer: a matrix of weights, and rows of inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .distributed import sum_over_ranks
from .errors import UserError

#: Column blocks in which a Gram matrix is computed: 10 of 16 products instead of all.
BLOCKS = 4


def check_layer(name: str, module: nn.Module) -> None:
    """Raise :class:`UserError` unless ``module`` multiplies rows of inputs by its weight."""
    plain = isinstance(module, nn.Linear)
    if not plain and not (isinstance(module, nn.Conv2d) and module.groups == 1):
        raise UserError(
            f'{name} is a {type(module).__name__}; from their inputs only linear layers and 2-D '
            'convolutions of one group can be pruned: name it in prune_cfg.exclude, or use Magnitude'
        )


def weight_matrix(module: nn.Module) -> Tensor:
    """The weight as (outputs, inputs); a view."""
    return module.weight.detach().flatten(1)


def input_rows(module: nn.Module, x: Tensor) -> Tensor:
    """The input as float32 (rows, inputs): each row is multiplied by :func:`weight_matrix`."""
    if isinstance(module, nn.Linear):
        return x.detach().flatten(0, -2).float()
    padding = module.padding
    if isinstance(padding, str):
        raise UserError(f"padding={padding!r} isn't handled; name the layer in prune_cfg.exclude")
    patches = F.unfold(
        x.detach().float(), module.kernel_size, module.dilation, padding, module.stride
    )
    return patches.movedim(1, 2).flatten(0, 1)


def gram(rows: Tensor, blocks: int = BLOCKS) -> Tensor:
    """``rows.T @ rows``, computing little more than its upper half.

    Args:
        rows: (rows, inputs).
        blocks: In how many column blocks.

    Returns:
        (inputs, inputs), symmetric.
    """
    width = rows.shape[1]
    out = rows.new_empty(width, width)
    edges = torch.linspace(0, width, min(blocks, width) + 1).long().tolist()
    for start, end in zip(edges, edges[1:], strict=False):
        torch.mm(rows[:, start:end].T, rows[:, start:], out=out[start:end, start:])
        out[start:, start:end] = out[start:end, start:].T
    return out


def input_squares(module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, float]:
    """Sum of the squares of each input feature over all rows and ranks, and the number of rows.

    Returns:
        float64 (inputs,), rows.
    """
    total, count = 0.0, 0
    for x in inputs:
        rows = input_rows(module, x)
        total = total + rows.square().sum(0).double()
        count += len(rows)
    return over_ranks(total, count)


def input_gram(module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, float]:
    """Sum over all rows and ranks of the inputs' outer products, and the number of rows.

    Returns:
        float32 (inputs, inputs), rows.
    """
    total, count = None, 0
    for x in inputs:
        rows = input_rows(module, x)
        part = gram(rows)
        total = part if total is None else total.add_(part)
        count += len(rows)
    return over_ranks(total, count)


def over_ranks(total: Tensor, count: int) -> tuple[Tensor, float]:
    """Both summed over all ranks."""
    table = {'total': total, 'count': torch.tensor(float(count), dtype=torch.float64)}
    sum_over_ranks(table)
    return table['total'], float(table['count'])
