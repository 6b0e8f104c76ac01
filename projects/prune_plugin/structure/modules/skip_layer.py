"""Replacement for a layer that was removed as a whole."""

from typing import Any

from torch import Tensor, nn

#: Keyword arguments by which Hugging Face's layers receive the key/value cache.
CACHE_NAMES = ('past_key_values', 'layer_past')


def cache_layer_index(module: nn.Module) -> int | None:
    """Layer index in the key/value cache used by ``module`` or one of its submodules; None: no cache."""
    indices = (getattr(child, 'layer_idx', None) for child in module.modules())
    return next((index for index in indices if isinstance(index, int)), None)


def count_tokens(x: Tensor, index: int | None, kwargs: dict[str, Any]) -> None:
    """Store one zero per token in the key/value cache, for a layer that has no keys any more.

    Generation derives the positions of new tokens from the length of a layer's cache. If a layer stored
    nothing, its length would be 0 and the positions would be wrong.

    Args:
        x: The layer's input, of shape (batch, tokens, ...).
        index: The layer's index in the cache; None if it doesn't use one.
        kwargs: Keyword arguments of the layer's forward call.
    """
    cache = next((kwargs[name] for name in CACHE_NAMES if kwargs.get(name) is not None), None)
    if cache is not None and index is not None:
        zeros = x.new_zeros(x.shape[0], 1, x.shape[1], 1)
        cache.update(zeros, zeros, index)


def first_tensor(args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """What a layer works on: the first tensor among its arguments."""
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


class SkipLayer(nn.Module):
    """Identity in place of a removed layer, so that the names of the other layers don't change.

    Args:
        index: The removed layer's index in the key/value cache; None if it didn't use one.
    """

    def __init__(self, index: int | None = None):
        super().__init__()
        self.layer_idx = index

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the first input unchanged."""
        x = first_tensor(args, kwargs)
        count_tokens(x, self.layer_idx, kwargs)
        return x
