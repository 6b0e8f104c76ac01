"""The papers' way through a model: block by block, each one forwarded twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class LayerMethod(Protocol):
    """What is done to one linear layer."""

    def add(self, inputs: Tensor) -> None:
        """Take in inputs of the layer, (batch, tokens, in)."""

    def prune(self, ratio: float, pattern: tuple[int, int] | None) -> None:
        """Set weights of the layer to zero.

        Args:
            ratio: Fraction removed, in [0, 1).
            pattern: (N, M): of M consecutive inputs N stay; None: unstructured.
        """


class ReachedError(Exception):
    """Ends a forward pass at the first block."""


def linears(module: nn.Module) -> list[nn.Linear]:
    """The linear layers inside a module, in order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def first_inputs(model: nn.Module, sequences: list[Tensor]) -> tuple[list[Tensor], dict[str, Any]]:
    """What the first block is called with: hidden states of every sequence, and the other arguments."""
    hidden: list[Tensor] = []
    others: dict[str, Any] = {}

    def catch(block: nn.Module, args: tuple, kwargs: dict) -> None:
        hidden.append(args[0])
        others.update(kwargs)
        raise ReachedError

    handle = model.model.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for sequence in sequences:
        try:
            model(sequence, use_cache=False)
        except ReachedError:
            pass
    handle.remove()
    return hidden, others


@contextmanager
def listening(jobs: dict[nn.Linear, LayerMethod]) -> Iterator[None]:
    """Show every layer's inputs to its method."""
    handles = [
        layer.register_forward_pre_hook(lambda _, args, job=job: job.add(args[0]))
        for layer, job in jobs.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def block_by_block(
    model: nn.Module,
    sequences: list[Tensor],
    method: Callable[[nn.Linear], LayerMethod],
    ratio: float,
    pattern: tuple[int, int] | None = None,
) -> None:
    """Prune the decoder's linear layers in place.

    Args:
        model: A plain Llama.
        sequences: Token ids, each (1, tokens), all of one length.
        method: Makes the method of one layer.
        ratio: Fraction removed, in [0, 1).
        pattern: (N, M), or None for unstructured.
    """
    hidden, others = first_inputs(model, sequences)
    for block in model.model.layers:
        jobs = {layer: method(layer) for layer in linears(block)}
        with listening(jobs):
            for states in hidden:
                block(states, **others)
        for job in jobs.values():
            job.prune(ratio, pattern)
        hidden = [block(states, **others) for states in hidden]
