"""Models that keep something from call to call, left as they were."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

#: What every module holds: its tables of parameters, hooks and the like.
OF_MODULES = frozenset(vars(nn.Module()))
#: Containers whose contents are put back, the contents' own contents aside.
CONTAINERS = (list, dict, set, deque)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put buffers and attributes (counters, states, caches, lists) of all modules back on exit.

    What modules keep inside of objects of other classes is not followed.
    """
    modules = list(model.modules())
    with torch.no_grad():
        before = [(module, remembered(module._buffers), attributes(module)) for module in modules]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, buffers, own in before:
                restore(module._buffers, buffers, module._buffers.keys() - buffers.keys())
                later = vars(module).keys() - own.keys() - OF_MODULES
                restore(vars(module), own, later)


def attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """A module's attributes, those aside that every module has."""
    return remembered({k: v for k, v in vars(module).items() if k not in OF_MODULES})


def remembered(values: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Each value with a copy of its content, where that may change."""
    return {name: (value, content(value)) for name, value in values.items()}


def content(value: Any) -> Any:
    """A copy of the numbers of a tensor, or of a container's entries; None for others."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, CONTAINERS):
        return list(value.items()) if isinstance(value, dict) else list(value)
    return None


def restore(values: dict[str, Any], before: dict[str, tuple[Any, Any]], later: set[str]) -> None:
    """Put values back under their names, with their contents; what came ``later`` goes."""
    for name in later:
        del values[name]
    for name, (value, old) in before.items():
        if isinstance(value, Tensor) and value.grad_fn is not None:
            continue  # computed anew in each call, as old weight norms' weights
        if values.get(name, values) is not value:
            values[name] = value
        if isinstance(value, Tensor):
            if not value.is_meta and not value.is_inference():
                value.detach().copy_(old)
        elif isinstance(value, CONTAINERS) and is_other(value, old):
            refill(value, old)


def is_other(value: Any, old: list) -> bool:
    """Whether a container holds other things than before."""
    now = [x for pair in value.items() for x in pair] if isinstance(value, dict) else list(value)
    then = [x for pair in old for x in pair] if isinstance(value, dict) else old
    return len(now) != len(then) or any(a is not b for a, b in zip(now, then, strict=True))


def refill(value: Any, old: list) -> None:
    """Give a container its old entries."""
    value.clear()
    if isinstance(value, dict | set):
        value.update(old)
    else:
        value.extend(old)
