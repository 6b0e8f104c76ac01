"""Replacement for an attention module of which all heads were removed."""

from typing import Any

from torch import Tensor, nn

from .skip_layer import cache_layer_index, count_tokens

#: Names of the output projection in Hugging Face's attention modules.
OUTPUT_PROJECTIONS = ('o_proj', 'out_proj', 'dense')


class EmptyAttention(nn.Module):
    """Attention without heads: returns the bias of the output projection, or zeros.

    The (empty) projections and the norms are kept as submodules, so the keys of the state dict don't
    change.

    Args:
        attention: A Hugging Face attention module of which all heads were removed.
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        for name, child in attention.named_children():
            self.add_module(name, child)
        self.output = next(name for name in OUTPUT_PROJECTIONS if hasattr(attention, name))
        self.layer_idx = cache_layer_index(attention)
        self.train(attention.training)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return (output in the shape of the input, None for the attention weights)."""
        count_tokens(hidden_states, self.layer_idx, kwargs)
        return getattr(self, self.output)(hidden_states[..., :0]), None
