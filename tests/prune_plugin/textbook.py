"""Weight-level methods as their papers define them: slow, in float64, nothing shared with the package."""

import torch
from torch import Tensor


def hessian_of(inputs: list[Tensor], damping: float = 0.01) -> Tensor:
    """Mean outer product over all rows of all inputs, damped; inputs that are always 0 get a 1."""
    rows = torch.cat([x.double().reshape(-1, x.shape[-1]) for x in inputs])
    hessian = sum(torch.outer(row, row) for row in rows) / len(rows)
    unused = (rows == 0).all(0)
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    for i in unused.nonzero().flatten().tolist():
        hessian[i, i] = 1
    return hessian


def inverses_of_the_rest(hessian: Tensor) -> list[Tensor]:
    """For each column the inverse Hessian of it and all after it, by eliminating one at a time."""
    inverse, found = torch.linalg.inv(hessian), []
    for _ in range(len(hessian)):
        found.append(inverse)
        inverse = inverse[1:, 1:] - torch.outer(inverse[1:, 0], inverse[0, 1:]) / inverse[0, 0]
    return found


def sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    ratio: float = 0.5,
    pattern: tuple[int, int] | None = None,
    mask_block_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """One layer: (new weights, mask of those that stay), both (outputs, inputs), float64 and bool."""
    weight = weight.double().clone()
    outputs, inputs = weight.shape
    keep = torch.ones(outputs, inputs, dtype=torch.bool)
    inverses = inverses_of_the_rest(hessian)
    together = pattern[1] if pattern else mask_block_size
    gone = 0
    for j in range(inputs):
        if j % together == 0:
            block = range(j, min(j + together, inputs))
            worth = [
                (float(weight[o, i] ** 2 / inverses[i][0, 0]), o, i)
                for o in range(outputs)
                for i in block
            ]
            if pattern:
                for o in range(outputs):
                    row = sorted(entry for entry in worth if entry[1] == o)
                    for _, _, i in row[: pattern[1] - pattern[0]]:
                        keep[o, i] = False
            else:
                target = round(ratio * outputs * (block[-1] + 1))
                for _, o, i in sorted(worth)[: target - gone]:
                    keep[o, i] = False
                gone = target
        error = torch.where(keep[:, j], 0.0, weight[:, j]) / inverses[j][0, 0]
        weight[:, j:] -= torch.outer(error, inverses[j][0])
        weight[~keep[:, j], j] = 0  # exactly, not but for rounding
    return weight, keep


def wanda(
    weight: Tensor, inputs: list[Tensor], ratio: float = 0.5, pattern: tuple[int, int] | None = None
) -> Tensor:
    """Mask of the weights of one layer that stay, (outputs, inputs)."""
    rows = torch.cat([x.double().reshape(-1, x.shape[-1]) for x in inputs])
    keep = torch.ones(weight.shape, dtype=torch.bool)
    outputs, width = weight.shape
    block, drop = (
        (pattern[1], pattern[1] - pattern[0]) if pattern else (width, round(ratio * width))
    )
    for o in range(outputs):
        worth = [float(weight[o, i].abs() * rows[:, i].norm()) for i in range(width)]
        for start in range(0, width, block):
            order = sorted(range(start, start + block), key=worth.__getitem__)
            keep[o, order[:drop]] = False
    return keep


def patches(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """What a convolution multiplies its weights with, place by place: (rows, inputs)."""
    x = torch.nn.functional.pad(x, [padding] * 4)
    return torch.stack([
        x[n, :, i : i + size, j : j + size].flatten()
        for n in range(len(x))
        for i in range(0, x.shape[2] - size + 1, stride)
        for j in range(0, x.shape[3] - size + 1, stride)
    ])  # fmt: skip
