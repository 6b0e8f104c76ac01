"""A call of a module, to be made again on copies of it."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map


@dataclass(frozen=True)
class Call:
    """A call of a module.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        method: The method that is called; empty: the module itself.
    """

    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    method: str = ''

    def on(self, module: nn.Module) -> Any:
        """Make the call; what the module returns."""
        function = getattr(module, self.method) if self.method else module
        return function(*self.args, **self.kwargs)

    def copied(self) -> 'Call':
        """With arguments of its own: a module may write into what it gets."""
        args, kwargs = tree_map(copied, (self.args, self.kwargs))
        return Call(args, kwargs, self.method)

    def in_double(self) -> 'Call':
        """With floating-point tensors in float64."""
        args, kwargs = tree_map(in_double, (self.args, self.kwargs))
        return Call(args, kwargs, self.method)


def copied(value: Any) -> Any:
    """A copy of an argument."""
    return value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)


def in_double(value: Any) -> Any:
    """A floating-point tensor in float64; anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
