"""Floating-point operations (FLOPs) of a model, per module."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..common.eval_mode import evaluation_mode
from ..common.unchanged import unchanged
from .example_inputs import Example


def grouped_mm_flops(
    x_shape: Sequence[int], weight_shape: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    """FLOPs of a product of rows with the matrix of their group, or of a batch of products.

    Args:
        x_shape: (rows, inputs), or (batch, rows, inputs).
        weight_shape: (groups, inputs, outputs).
        args: Others of the operation.
        kwargs: The same.
    """
    return 2 * math.prod(x_shape) * weight_shape[-1]


#: Operations that PyTorch's counter doesn't know.
MORE_FORMULAS: dict[Any, Any] = {torch.ops.aten._grouped_mm: grouped_mm_flops}


@contextmanager
def gradients_disabled(model: nn.Module) -> Iterator[None]:
    """Set ``requires_grad`` of all parameters to False: ``FlopCounterMode`` fails on views otherwise."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@torch.no_grad()
def module_flops(model: nn.Module, example: Example, warm: bool = False) -> dict[str, int]:
    """Exclusive FLOPs of each module (without those of the modules it calls), for one forward call.

    A multiply-accumulate of a matrix product or a convolution counts as two FLOPs, as in PyTorch's
    ``FlopCounterMode``; element-wise operations are not counted. Attention runs on the math kernel, as
    the counter doesn't see the fused kernels on CPUs. Values that the model caches in its first call (the
    geometry of a camera rig) are not counted.

    Args:
        model: The model.
        example: Arguments of the call.
        warm: Whether the model has already been called with them, so that its caches are filled.

    Returns:
        ``{module name: FLOPs}`` for modules with nonzero FLOPs; the sum is the model's total.
    """
    counter = FlopCounterMode(display=False, custom_mapping=MORE_FORMULAS)
    args, kwargs = example
    with evaluation_mode(model), unchanged(model):
        if not warm:
            model(*args, **kwargs)
        with (
            sdpa_kernel(SDPBackend.MATH),
            gradients_disabled(model),
            exclusive_flops(model, counter) as exclusive,
            counter,
        ):
            model(*args, **kwargs)
    return {name: flops for name, flops in exclusive.items() if flops}


@contextmanager
def exclusive_flops(model: nn.Module, counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """Attribute the FLOPs that ``counter`` counts to the innermost running module, by name.

    The stack of running modules is tracked by hooks, as the module hierarchy isn't the call hierarchy:
    a ``ModuleList`` is never called, a method of a submodule may be called without the submodule, and
    two modules may call the same one.

    Yields:
        ``{module name: FLOPs}``, filled while the model runs.
    """
    exclusive: dict[str, int] = {}
    running: list[tuple[str, int]] = []  # call stack: module, total FLOPs when last attributed
    handles = []

    def attribute() -> None:
        if running:
            name, start = running[-1]
            exclusive[name] = exclusive.get(name, 0) + counter.get_total_flops() - start

    for name, module in model.named_modules():

        def enter(module: nn.Module, args: tuple, name: str = name) -> None:
            attribute()
            running.append((name, counter.get_total_flops()))

        def leave(module: nn.Module, args: tuple, output: Any) -> None:
            attribute()
            running.pop()
            if running:
                running[-1] = (running[-1][0], counter.get_total_flops())

        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave),
        ]
    try:
        yield exclusive
    finally:
        for handle in handles:
            handle.remove()
