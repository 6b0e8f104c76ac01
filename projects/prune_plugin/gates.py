"""The loss's derivative by a gate on each unit: a factor of 1 on what is read of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .units.base import Cut, UnitGroup


class Gates:
    """Adds up squared derivatives, batch by batch.

    A unit's gate stands where its readers take it in (the columns of an output projection), a whole
    layer's on what the layer adds to the stream. Its derivative is the sum of value times gradient
    there, so neither gates nor gradients of weights are needed.

    Args:
        model: The model.
        groups: The unit groups.

    Attributes:
        squares: ``{group: float64 (size,)}``, sums over batches of samples times squared derivative.
    """

    def __init__(self, model: nn.Module, groups: Sequence[UnitGroup]):
        self.model = model
        device = next(model.parameters()).device
        self.squares = {
            group.name: torch.zeros(group.size, dtype=torch.float64, device=device)
            for group in groups
            if is_layer(group) or any(cut.side == 'out' for cut in group.cuts)
        }
        self.groups = [group for group in groups if group.name in self.squares]
        self.derivatives: dict[str, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the derivatives of every backward pass meanwhile."""
        handles = []
        for group in self.groups:
            if is_layer(group):
                owner = self.model.get_submodule(group.owner)
                handles.append(owner.register_forward_pre_hook(with_gradient))
                handles.append(owner.register_forward_hook(self.watch_layer(group)))
            for cut in group.cuts:
                if cut.side == 'out':
                    reader = self.model.get_submodule(cut.name.rpartition('.')[0])
                    handles.append(reader.register_forward_pre_hook(with_gradient))
                    handles.append(reader.register_forward_pre_hook(self.watch_input(group, cut)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def watch_input(self, group: UnitGroup, cut: Cut):
        """The hook on a module that reads a group's units."""

        def before(module: nn.Module, args: tuple) -> None:
            x = args[0]
            if not (torch.is_grad_enabled() and x.requires_grad):
                return
            value = x.detach()
            dim = -1 if isinstance(module, nn.Linear) else 1

            def add(gradient: Tensor) -> None:
                columns = (value * gradient).movedim(dim, -1).flatten(0, -2).float().sum(0).double()
                owned = cut.indices(group.size).to(columns.device)
                self.add(group.name, columns[owned].sum(1))

            x.register_hook(add)

        return before

    def watch_layer(self, group: UnitGroup):
        """The hook on a whole layer."""

        def after(module: nn.Module, args: tuple, output) -> None:
            out = output[0] if isinstance(output, tuple) else output
            if not (torch.is_grad_enabled() and out.requires_grad):
                return
            added = (out - args[0]).detach()
            out.register_hook(
                lambda gradient: self.add(group.name, (added * gradient).double().sum().reshape(1))
            )

        return after

    def add(self, name: str, derivative: Tensor) -> None:
        """Add one part to this batch's derivatives."""
        self.derivatives[name] = self.derivatives.get(name, 0) + derivative

    def settle(self, samples: int) -> None:
        """Square this batch's derivatives; the loss was a mean over so many samples."""
        for name, derivative in self.derivatives.items():
            self.squares[name] += samples * derivative.square()
        self.derivatives = {}


def is_layer(group: UnitGroup) -> bool:
    """Whether the group is a whole layer."""
    return any(cut.dim is None for cut in group.cuts)


def with_gradient(module: nn.Module, args: tuple) -> tuple | None:
    """Begin the graph at this module's input, if nothing before it needs one."""
    x = args[0]
    if not torch.is_grad_enabled() or x.requires_grad or not x.is_floating_point():
        return None
    return (x.detach().requires_grad_(True), *args[1:])
