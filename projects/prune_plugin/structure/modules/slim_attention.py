"""Multi-head attention whose inner width is independent of the embedding width."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SlimMultiheadAttention(nn.Module):
    """Replacement for ``nn.MultiheadAttention`` with the same state-dict keys and call signature.

    ``nn.MultiheadAttention`` requires ``num_heads * head_dim == embed_dim``; this class doesn't, so heads
    can be removed. It shares the parameters of the module it is built from.

    Args:
        dense: The module to replace.
    """

    # nn.TransformerEncoderLayer reads this: False keeps it off a fused path that needs square shapes.
    _qkv_same_embed_dim = False

    def __init__(self, dense: nn.MultiheadAttention):
        super().__init__()
        self.embed_dim = dense.embed_dim
        self.num_heads = dense.num_heads
        self.head_dim = dense.head_dim
        self.dropout = dense.dropout
        self.batch_first = dense.batch_first
        for name in ('in_proj_weight', 'q_proj_weight', 'k_proj_weight', 'v_proj_weight'):
            self.register_parameter(name, getattr(dense, name))
        self.register_parameter('in_proj_bias', dense.in_proj_bias)
        self.out_proj = nn.Linear(1, 1, bias=dense.out_proj.bias is not None, device='meta')
        self.out_proj.in_features = self.num_heads * self.head_dim
        self.out_proj.out_features = self.embed_dim
        self.out_proj.weight, self.out_proj.bias = dense.out_proj.weight, dense.out_proj.bias
        index = torch.arange(self.num_heads, device=dense.out_proj.weight.device)
        self.register_buffer('head_index', index, persistent=False)
        self.dense_heads = self.num_heads
        self.train(dense.training)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Project to queries, keys and values of shape (batch, heads, length, head_dim)."""
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            weights = self.in_proj_weight.tensor_split(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.tensor_split(3)
        projected = (
            F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        shape = (self.num_heads, self.head_dim)
        return [x.unflatten(-1, shape).transpose(1, 2) for x in projected]

    def _bias(self, mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
        """Combine both masks into one additive mask, broadcastable to (batch, heads, query, key)."""
        total = None
        if mask is not None:
            if mask.dim() == 3:
                mask = mask.unflatten(0, (-1, self.dense_heads))[:, self.head_index]
            total = as_additive(mask, like)
        if padding is not None:
            padding = as_additive(padding, like)[:, None, None, :]
            total = padding if total is None else total + padding
        return total

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See ``nn.MultiheadAttention.forward``. A 3-D ``attn_mask`` has one mask per head of ``dense``."""
        unbatched = query.dim() == 2
        if unbatched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._project(query, key, value)
        bias = self._bias(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = (scores if bias is None else scores + bias).softmax(-1)
            heads = F.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            heads = F.scaled_dot_product_attention(q, k, v, bias, dropout)
            weights = None
        out = self.out_proj(heads.transpose(1, 2).flatten(2))
        if unbatched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights


def as_additive(mask: Tensor, like: Tensor) -> Tensor:
    """Convert a boolean mask (True: masked out) to one that is added to the scores, in ``like``'s dtype."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float('-inf'))
