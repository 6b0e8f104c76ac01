"""What stands where an attention module lost all of its heads."""

from torch import Tensor, nn

from .skip_layer import cache_index, hold_place

#: Names of the output projection in Hugging Face's attention modules.
OUTPUTS = ('o_proj', 'out_proj', 'dense')


class EmptyAttention(nn.Module):
    """Attention without heads: what is left of the output projection is its bias.

    It keeps the (empty) projections and norms, so names in the state dict stay.

    Args:
        attention: A Hugging Face attention module that has lost all of its heads.
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        for name, child in attention.named_children():
            self.add_module(name, child)
        self.output = next(name for name in OUTPUTS if hasattr(attention, name))
        self.layer_idx = cache_index(attention)
        self.train(attention.training)

    def forward(self, hidden_states: Tensor, *args, **kwargs) -> tuple[Tensor, None]:
        """Zeros, or the output projection's bias, in the input's shape; and no attention weights."""
        hold_place(hidden_states, self.layer_idx, kwargs)
        return getattr(self, self.output)(hidden_states[..., :0]), None
