"""Floating-point operations of a model, module by module."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..common.eval_mode import evaluation_mode
from .example_inputs import Example


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient: FLOP counting stumbles over views of those that do."""
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
    """FLOPs of each module's own operations (without its children's), for one forward call.

    FLOPs are two per multiply-accumulate of matrix products and convolutions, as PyTorch's
    ``FlopCounterMode`` counts them; element-wise operations are not counted. Attention runs on the
    plain kernel meanwhile, as the counter doesn't see the fused ones on CPUs. What a model computes
    once and keeps (a rig's geometry) isn't counted.

    Args:
        model: The model.
        example: Arguments of the call.
        warm: The model has been called with them before.

    Returns:
        ``{module name: FLOPs}`` for modules with any; the sum is the model's.
    """
    counter = FlopCounterMode(display=False)
    args, kwargs = example
    with evaluation_mode(model):
        if not warm:
            model(*args, **kwargs)
        with sdpa_kernel(SDPBackend.MATH), frozen(model), own_flops(model, counter) as own, counter:
            model(*args, **kwargs)
    return {name: flops for name, flops in own.items() if flops}


@contextmanager
def own_flops(model: nn.Module, counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """Record what each module spends itself, by name, while ``counter`` counts.

    What a module calls isn't always what is in it: a ``ModuleList`` is never called, a method of a
    submodule may be called without the submodule, and two modules may call the same one.
    """
    own: dict[str, int] = {}
    running: list[tuple[str, int]] = []  # modules, and the count up to which theirs is settled
    handles = []

    def settle() -> None:
        if running:
            name, before = running[-1]
            own[name] = own.get(name, 0) + counter.get_total_flops() - before

    for name, module in model.named_modules():

        def enter(module: nn.Module, args: tuple, name: str = name) -> None:
            settle()
            running.append((name, counter.get_total_flops()))

        def leave(module: nn.Module, args: tuple, output: Any) -> None:
            settle()
            running.pop()
            if running:
                running[-1] = (running[-1][0], counter.get_total_flops())

        handles += [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave),
        ]
    try:
        yield own
    finally:
        for handle in handles:
            handle.remove()
