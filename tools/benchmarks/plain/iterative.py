"""Iterative magnitude pruning with training between the rounds: Han et al., arXiv 1506.02626."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .driver import linears
from .magnitude import prune_magnitude


def zeros(model: nn.Module) -> dict[nn.Linear, Tensor]:
    """Where the decoder's linear layers hold zeros."""
    return {layer: layer.weight.detach() == 0 for layer in linears(model.model.layers)}


def train(
    model: nn.Module, batches: Iterable[Tensor], learning_rate: float, keep_zeros: bool = True
) -> list[float]:
    """AdamW over the batches, one step each; zeros in the linear layers stay zero.

    Args:
        model: The model; left in evaluation mode.
        batches: Token ids, (batch, tokens).
        learning_rate: Constant.
        keep_zeros: False for a dense model, whose zeros are chance.

    Returns:
        The loss of every step.
    """
    masks = zeros(model) if keep_zeros else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    losses = []
    model.train()
    for batch in batches:
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for layer, mask in masks.items():
                layer.weight.masked_fill_(mask, 0)
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def iterate(
    model: nn.Module, plan: Sequence[tuple[float, int]], batches: Iterator[Tensor], rate: float
) -> Iterator[tuple[int, str]]:
    """Prune to each ratio of the plan and train; yields round and what was done, twice a round."""
    for number, (ratio, steps) in enumerate(plan, start=1):
        prune_magnitude(model, ratio)  # zeros come first in the order, so what is gone stays gone
        yield number, 'pruned'
        train(model, [next(batches) for _ in range(steps)], rate)
        yield number, 'trained'
