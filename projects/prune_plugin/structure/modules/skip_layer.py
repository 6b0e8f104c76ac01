"""What stands where a whole layer was removed."""

from typing import Any

from torch import Tensor, nn

#: Names under which Hugging Face's layers get their key/value cache.
CACHE_NAMES = ('past_key_values', 'layer_past')


def cache_index(module: nn.Module) -> int | None:
    """The place in the key/value cache that a module or one of its children fills; None: no place."""
    found = (getattr(child, 'layer_idx', None) for child in module.modules())
    return next((index for index in found if isinstance(index, int)), None)


def hold_place(x: Tensor, index: int | None, options: dict[str, Any]) -> None:
    """Let a key/value cache go on counting tokens in a layer that has no keys any more.

    Generation asks single layers of the cache how many tokens have passed. A layer that stores
    nothing would answer 0, and later tokens would get wrong positions.

    Args:
        x: What the layer was given, (batch, tokens, ...).
        index: The layer's place in the cache; None: it had none.
        options: Keyword arguments of the layer's call.
    """
    cache = next((options[name] for name in CACHE_NAMES if options.get(name) is not None), None)
    if cache is not None and index is not None:
        nothing = x.new_zeros(x.shape[0], 1, x.shape[1], 1)
        cache.update(nothing, nothing, index)


class SkipLayer(nn.Module):
    """Hands its first input on. Keeping the place keeps the other layers' names.

    Args:
        index: The removed layer's place in a key/value cache; None: it had none.
    """

    def __init__(self, index: int | None = None):
        super().__init__()
        self.layer_idx = index

    def forward(self, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        """Return the first input untouched."""
        hold_place(hidden_states, self.layer_idx, kwargs)
        return hidden_states
