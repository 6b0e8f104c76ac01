"""The loss's derivative by a gate on each unit: a factor of 1 on what is read of it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..structure.unit_group import Cut, UnitGroup


class MaskGradients:
    """Adds up squared derivatives, batch by batch.

    A unit's gate stands where its readers take it in (the columns of an output projection), a whole
    layer's on what the layer adds to the stream. Its derivative is the sum of value times gradient
    there, so neither gates nor gradients of weights are needed.

    Args:
        model: The model.
        groups: The unit groups; those that can have no gate are left out.

    Attributes:
        squares: ``{group: float64 (size,)}``, sums over batches of samples times squared derivative.
    """

    def __init__(self, model: nn.Module, groups: Sequence[UnitGroup]):
        self.model = model
        self.groups = [group for group in groups if has_mask_gradient(group)]
        device = next(model.parameters()).device
        self.squares = {
            group.name: torch.zeros(group.size, dtype=torch.float64, device=device)
            for group in self.groups
        }
        self.derivatives: dict[str, Tensor] = {}
        self.silent = set(self.squares)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the derivatives of every backward pass meanwhile."""
        handles = []
        for group in self.groups:
            if is_layer(group):
                owner = self.model.get_submodule(group.owner)
                handles.append(owner.register_forward_pre_hook(enter_layer, with_kwargs=True))
                hook = self.watch_layer(group)
                handles.append(owner.register_forward_hook(hook, with_kwargs=True))
            for cut in input_cuts(group):
                reader = self.model.get_submodule(cut.name.rpartition('.')[0])
                hook = self.watch_input(group, cut)
                handles.append(reader.register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def watch_input(self, group: UnitGroup, cut: Cut):
        """The hook on a module that reads a group's units."""

        def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            x = first_of(args, kwargs)
            if not torch.is_grad_enabled():
                return None  # the first pass of a checkpointed segment
            # A name of its own: others may read the same tensor, and their gradients aren't meant.
            x = x.view_as(x) if x.requires_grad else x.detach().requires_grad_(True)
            value = x.detach()
            dim = -1 if isinstance(module, nn.Linear) else 1

            def add(gradient: Tensor) -> None:
                products = (value.float() * gradient).movedim(dim, -1).flatten(0, -2)
                columns = products.sum(0).double()
                owned = cut.indices(group.size).to(columns.device)
                self.add(group.name, columns[owned].sum(1))

            x.register_hook(add)
            return with_first(x, args, kwargs)

        return before

    def watch_layer(self, group: UnitGroup):
        """The hook on a whole layer."""

        def after(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            out = output[0] if isinstance(output, tuple) else output
            if not (torch.is_grad_enabled() and out.requires_grad):
                return
            added = out.detach().float() - first_of(args, kwargs).detach()
            out.register_hook(
                lambda gradient: self.add(group.name, (added * gradient).double().sum().reshape(1))
            )

        return after

    def add(self, name: str, derivative: Tensor) -> None:
        """Add one part to this batch's derivatives."""
        self.silent.discard(name)
        self.derivatives[name] = self.derivatives.get(name, 0) + derivative

    def settle(self, samples: int) -> None:
        """Square this batch's derivatives; the loss was a mean over so many samples."""
        for name, derivative in self.derivatives.items():
            self.squares[name] += samples * derivative.square()
        self.derivatives = {}

    def warn(self) -> None:
        """Log which groups no backward pass has reached: their units all count as 0."""
        if self.silent:
            names = [group.name for group in self.groups if group.name in self.silent]
            print_log(
                f'the calibration loss does not depend on {len(names)} unit groups '
                f'({", ".join(names[:3])} ...): Fisher scores them 0',
                'current',
                logging.WARNING,
            )


def input_cuts(group: UnitGroup) -> list[Cut]:
    """The cuts through what reads the group's units."""
    return [cut for cut in group.cuts if cut.side == 'out']


def is_layer(group: UnitGroup) -> bool:
    """Whether the group is a whole layer."""
    return any(cut.dim is None for cut in group.cuts)


def has_mask_gradient(group: UnitGroup) -> bool:
    """Whether there is a place for gates: a module that reads the units, or a whole layer."""
    return is_layer(group) or bool(input_cuts(group))


def first_of(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """A call's first input, however it is given."""
    return next(iter((*args, *kwargs.values())))


def with_first(x: Tensor, args: tuple, kwargs: Mapping[str, Any]) -> tuple[tuple, dict]:
    """The call's inputs with ``x`` as the first."""
    if args:
        return (x, *args[1:]), dict(kwargs)
    return args, {**kwargs, next(iter(kwargs)): x}


def enter_layer(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Begin the graph at this layer's input, if nothing before it needs one."""
    x = first_of(args, kwargs)
    if not torch.is_grad_enabled() or x.requires_grad or not x.is_floating_point():
        return None
    return with_first(x.detach().requires_grad_(True), args, kwargs)
