"""Where queries start: on a grid over the BEV instead of at random."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def aim(linear: nn.Linear, embeddings: Tensor, points: Tensor) -> None:
    """Set a layer so that ``linear(embeddings).sigmoid()`` are the points, by least squares.

    Args:
        linear: Width of an embedding to coordinates.
        embeddings: ``(n, width)``; points are met exactly while these are independent.
        points: ``(n, coordinates)``, each in (0, 1).
    """
    wanted = torch.logit(points) - linear.bias
    linear.weight.copy_(torch.linalg.lstsq(embeddings, wanted).solution.T)


def grid(count: int, extent: Sequence[float]) -> Tensor:
    """``(count, 2)`` points x, y in (0, 1), evenly spread over a field of ``extent`` x, y metres."""
    rows = max(1, min(count, round(math.sqrt(count * extent[1] / extent[0]))))
    columns = math.ceil(count / rows)
    index = torch.arange(count)
    x = (index % columns + 0.5) / columns
    y = (index // columns + 0.5) / rows
    return torch.stack([x, y], 1)


def spread_objects(linear: nn.Linear, embeddings: Tensor, extent: Sequence[float]) -> None:
    """Reference points of object queries on a grid, at half height.

    Args:
        linear: The transformer's ``reference_points``.
        embeddings: Positions of the object queries ``(Q, width)``.
        extent: Size of the BEV in x and y, in metres.
    """
    places = grid(len(embeddings), extent)
    aim(linear, embeddings, torch.cat([places, torch.full((len(places), 1), 0.5)], 1))


def spread_lines(
    linear: nn.Linear, instances: Tensor, points: Tensor, extent: Sequence[float]
) -> None:
    """Reference points of map queries: lines along y (ahead), side by side.

    Args:
        linear: The transformer's ``map_reference_points``.
        instances: Positions of the lines ``(V, width)``.
        points: Positions of the points of a line ``(P, width)``; a query is the sum of both.
        extent: Size of the BEV in x and y, in metres.
    """
    along = torch.linspace(0.2, 0.8, len(points))
    offsets = torch.stack([torch.full_like(along, 0.5), along], 1)
    embeddings, places = (
        torch.cat([instances, points]),
        torch.cat([grid(len(instances), extent), offsets]),
    )
    aim(linear, embeddings, places)
