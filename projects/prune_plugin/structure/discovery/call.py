"""A call of a module, to be made again on copies of it."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map


@dataclass(frozen=True)
class Call:
    """A call of a module.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        method: The method that is called, or several one after the other (``backbone|neck``); empty: the
            module itself.
    """

    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    method: str = ''

    @property
    def example(self) -> tuple[tuple, dict[str, Any]]:
        """The arguments alone."""
        return self.args, self.kwargs

    def on(self, module: nn.Module) -> Any:
        """Make the call; what the module returns."""
        first, *others = (
            [getattr(module, name) for name in self.method.split('|')] if self.method else [module]
        )
        out = first(*self.args, **self.kwargs)
        for function in others:
            out = function(out)
        return out

    def copied(self) -> 'Call':
        """With arguments of its own: a module may write into what it gets."""
        args, kwargs = tree_map(copied, (self.args, self.kwargs))
        return Call(args, kwargs, self.method)

    def first_rows(self, count: int) -> 'Call':
        """With the first of the rows that all tensors have, if they have the same number of them."""
        tensors = [x for x in tree_leaves((self.args, self.kwargs)) if isinstance(x, Tensor)]
        lengths = {len(x) if x.dim() else 0 for x in tensors}
        if len(lengths) != 1 or max(lengths) <= count:
            return self

        def rows(value: Any) -> Any:
            return value[:count] if isinstance(value, Tensor) else value

        args, kwargs = tree_map(rows, (self.args, self.kwargs))
        return Call(args, kwargs, self.method)

    def repeated(self) -> 'Call':
        """With all rows twice, if all tensors have the same number of them; else the call itself."""
        tensors = [x for x in tree_leaves((self.args, self.kwargs)) if isinstance(x, Tensor)]
        lengths = {len(x) if x.dim() else 0 for x in tensors}
        if len(lengths) != 1 or not max(lengths):
            return self

        def twice(value: Any) -> Any:
            return torch.cat([value, value]) if isinstance(value, Tensor) else value

        args, kwargs = tree_map(twice, (self.args, self.kwargs))
        return Call(args, kwargs, self.method)

    def with_noise(self, seed: int) -> 'Call':
        """With noise on floating-point tensors: equal tokens, or zeros, hide how they are told apart."""
        generator = torch.Generator().manual_seed(seed)

        def noisy(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
                return value
            finite = value[value.isfinite()].float()
            spread = float(finite.std()) if finite.numel() > 1 else 0.0
            noise = torch.randn(value.shape, generator=generator).to(value)
            return value + noise * (min(spread, 1.0) or 1.0)

        args, kwargs = tree_map(noisy, (self.args, self.kwargs))
        return Call(args, kwargs, self.method)

    def in_dtype(self, dtype: torch.dtype) -> 'Call':
        """With all floating-point tensors of one type."""

        def converted(value: Any) -> Any:
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(dtype) if floating else value

        args, kwargs = tree_map(converted, (self.args, self.kwargs))
        return Call(args, kwargs, self.method)


def copied(value: Any) -> Any:
    """A copy of an argument."""
    return value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)
