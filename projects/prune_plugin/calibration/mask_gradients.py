"""Gradients of unit masks: derivatives of the loss with respect to a mask variable of 1 per unit."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..structure.unit_group import Cut, UnitGroup
from .readers import is_layer_input


class MaskGradients:
    """Accumulates squared gradients of unit masks, batch by batch.

    The mask of a unit multiplies the inputs of the layers that read it (the columns of an output
    projection); that of a whole layer multiplies what the layer adds to the residual stream. At a mask of
    1 its gradient is the sum of activation times gradient there, so neither mask variables nor weight
    gradients are needed.

    Args:
        model: The model.
        groups: The unit groups; those without a mask gradient are left out (:func:`has_mask_gradient`).

    Attributes:
        groups: The unit groups that are recorded.
        squares: By group name, float64 (size,): sum over batches of the number of samples times the
            squared gradient of the batch's mean loss.
    """

    def __init__(self, model: nn.Module, groups: Sequence[UnitGroup]):
        self.model = model
        self.groups = [group for group in groups if has_mask_gradient(group)]
        self.device = next(model.parameters()).device
        self.squares = {
            group.name: torch.zeros(group.size, dtype=torch.float64, device=self.device)
            for group in self.groups
        }
        self.gradients: dict[str, Tensor] = {}
        self.unreached = set(self.squares)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Register hooks that record the mask gradients of every backward pass; removed at the end.

        To be entered in :meth:`GradientSums.recording`, which says what requires gradients.
        """
        handles = []
        for group in self.groups:
            if group.is_whole:
                owner = self.model.get_submodule(group.owner)
                handles.append(owner.register_forward_pre_hook(start_graph, with_kwargs=True))
                handles.append(
                    owner.register_forward_hook(self.layer_hook(group), with_kwargs=True)
                )
            for cut in input_cuts(group):
                if group.kind == 'expert' or not is_layer_input(self.model, cut):
                    handles += self.weight_hooks(group, cut)
                    continue
                reader = self.model.get_submodule(cut.name.rpartition('.')[0])
                input_hook = self.input_hook(group, cut)
                handles.append(reader.register_forward_pre_hook(input_hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def input_hook(self, group: UnitGroup, cut: Cut) -> Callable[..., tuple[tuple, dict] | None]:
        """A forward pre-hook for the module that reads the group's units through ``cut``."""
        owned = cut.indices(group.size).to(self.device)

        def pre_hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            x = first_input(args, kwargs)
            if not torch.is_grad_enabled():
                return None  # the first pass of a checkpointed segment
            # A separate view, as other modules may read the same tensor: their gradients don't count.
            x = x.view_as(x) if x.requires_grad else x.detach().requires_grad_(True)
            value = x.detach()
            dim = -1 if isinstance(module, nn.Linear) else 1

            def add(gradient: Tensor) -> None:
                products = (value.float() * gradient).movedim(dim, -1).flatten(0, -2)
                columns = products.sum(0).double()
                self.add(group.name, columns[owned].sum(1))

            x.register_hook(add)
            return with_first_input(x, args, kwargs)

        return pre_hook

    def weight_hooks(self, group: UnitGroup, cut: Cut) -> list[Any]:
        """Hooks on a weight that no layer holds: a mask on what its columns read scales the columns.

        So the mask's gradient is the sum of weight times gradient over them.
        """
        parameter = self.model.get_parameter(cut.name)
        is_summed = parameter.requires_grad  # by GradientSums, which reads and frees it
        parameter.requires_grad_(True)
        owned = cut.indices(group.size).to(parameter.device)
        others = [d for d in range(parameter.dim()) if d != cut.dim]

        def add(gradient: Tensor) -> None:
            columns = (parameter.detach().float() * gradient.float()).sum(others).double()
            self.add(group.name, columns[owned].sum(1))

        handles = [parameter.register_hook(add)]
        if not is_summed:
            handles.append(parameter.register_post_accumulate_grad_hook(free_gradient))
        return handles

    def layer_hook(self, group: UnitGroup) -> Callable[..., None]:
        """A forward hook for a whole layer, attention or MLP: a mask on what it adds."""
        is_branch = any(how.startswith('SkipBranch') for _, how in group.converts)

        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            out = output[0] if isinstance(output, tuple) else output
            if not (torch.is_grad_enabled() and out.requires_grad):
                return
            added = out.detach().float()
            if not is_branch:
                added = added - first_input(args, kwargs).detach()
            out.register_hook(
                lambda gradient: self.add(group.name, (added * gradient).double().sum().reshape(1))
            )

        return hook

    def add(self, name: str, gradient: Tensor) -> None:
        """Add a term to the mask gradient of group ``name`` in this batch, (size,)."""
        self.unreached.discard(name)
        self.gradients[name] = self.gradients.get(name, 0) + gradient

    def discard(self) -> None:
        """Forget the gradients of this batch."""
        self.gradients = {}

    def end_batch(self, samples: int, scale: float = 1.0) -> None:
        """Add this batch's squared gradients to ``squares``.

        Args:
            samples: The loss was their mean ...
            scale: ... times this.
        """
        for name, gradient in self.gradients.items():
            self.squares[name] += samples * (gradient / scale).square()
        self.discard()

    def warn_unreached(self) -> None:
        """Log a warning that names groups which no backward pass reached: their units score 0."""
        if self.unreached:
            names = [group.name for group in self.groups if group.name in self.unreached]
            print_log(
                f'the calibration loss does not depend on {len(names)} unit groups '
                f'({", ".join(names[:3])} ...): Fisher scores them 0',
                'current',
                logging.WARNING,
            )


def free_gradient(parameter: Tensor) -> None:
    """Free the gradient of a parameter."""
    parameter.grad = None


def input_cuts(group: UnitGroup) -> list[Cut]:
    """The cuts of the tensors that read the group's units (the ``'out'`` side)."""
    return [cut for cut in group.cuts if cut.side == 'out']


def has_mask_gradient(group: UnitGroup) -> bool:
    """Whether the group's units have mask gradients: a module reads them, or they are a whole layer."""
    return group.is_whole or bool(input_cuts(group))


def first_input(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """The first argument of a call, positional or by keyword."""
    return next(iter((*args, *kwargs.values())))


def with_first_input(x: Tensor, args: tuple, kwargs: Mapping[str, Any]) -> tuple[tuple, dict]:
    """The arguments of a call with the first one replaced by ``x``."""
    if args:
        return (x, *args[1:]), dict(kwargs)
    return args, {**kwargs, next(iter(kwargs)): x}


def start_graph(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """A forward pre-hook that starts the autograd graph at this input, unless it started earlier."""
    x = first_input(args, kwargs)
    if not torch.is_grad_enabled() or x.requires_grad or not x.is_floating_point():
        return None
    return with_first_input(x.detach().requires_grad_(True), args, kwargs)
