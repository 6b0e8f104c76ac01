"""Replacements for a layer, an attention or an MLP of a residual block that was removed as a whole."""

from typing import Any

import torch
from torch import Tensor, nn

from .skip_layer import SkipLayer, cache_layer_index

#: Converters by name; ``SkipBranch:2`` stands for a module that returned a tuple of two.
NAMES = ('SkipLayer', 'SkipBranch')


class SkipBranch(SkipLayer):
    """Zeros in place of a removed branch: nothing is added to the residual stream.

    Args:
        index: See :class:`SkipLayer`.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return zeros of the shape of the first tensor."""
        return torch.zeros_like(super().forward(*args, **kwargs))


class TupleSkipLayer(SkipLayer):
    """A :class:`SkipLayer` for a layer that returned a tuple.

    Args:
        index: See :class:`SkipLayer`.
        outputs: Length of the tuple; all but the first are None.
    """

    def __init__(self, index: int | None, outputs: int):
        super().__init__(index)
        self.outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first input unchanged, or zeros, and None for the rest."""
        return (super().forward(*args, **kwargs), *(None,) * (self.outputs - 1))


class TupleSkipBranch(TupleSkipLayer, SkipBranch):
    """A :class:`SkipBranch` for a module that returned a tuple."""


def spec(name: str, outputs: int | None) -> str:
    """The converter for a module that returns a tensor (None), or a tuple of so many."""
    return name if outputs is None else f'{name}:{outputs}'


def parse(converter: str) -> tuple[str, int] | None:
    """Name and number of outputs of a converter made by :func:`spec` for a tuple, else None."""
    name, colon, number = converter.partition(':')
    if name not in NAMES or not colon or not number.isdecimal() or not 0 < int(number) < 100:
        return None
    return name, int(number)


def to_skipped(module: nn.Module, name: str, outputs: int | None = None) -> SkipLayer:
    """The replacement of a module.

    Args:
        module: The module.
        name: One of :data:`NAMES`.
        outputs: See :func:`spec`.
    """
    index = cache_layer_index(module)
    if outputs is None:
        new = SkipBranch(index) if name == 'SkipBranch' else SkipLayer(index)
    else:
        new = (TupleSkipBranch if name == 'SkipBranch' else TupleSkipLayer)(index, outputs)
    for key, value in vars(module).items():  # others may read what kind of layer it is
        if (
            not key.startswith('_')
            and isinstance(value, str | int | float)
            and not hasattr(new, key)
        ):
            setattr(new, key, value)
    return new.train(module.training)
