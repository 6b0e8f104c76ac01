"""Multi-head attention with an inner width of its own, and keys that are relative to the query."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HeadAttention(nn.Module):
    """The projections of multi-head attention, named as ``nn.MultiheadAttention`` names them.

    Unlike that one, the inner width (``num_heads * head_dim``) need not be ``embed_dims``.

    Args:
        embed_dims: Width of queries, keys, values and outputs.
        num_heads: Attention heads.
        head_dim: Width of a head.
        dropout: Of the attention weights.
    """

    def __init__(self, embed_dims: int, num_heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout
        inner = num_heads * head_dim
        self.in_proj_weight = nn.Parameter(torch.empty(3 * inner, embed_dims))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * inner))
        self.out_proj = nn.Linear(inner, embed_dims)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def split(self, x: Tensor) -> Tensor:
        """``(B, n, heads * head_dim)`` to ``(B, heads, n, head_dim)``."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        hidden: Tensor | None = None,
        key_shift: Tensor | None = None,
        shifted: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        With ``key_shift`` query i sees ``key[j] - key_shift[i]`` instead of ``key[j]``. The score
        is linear in the key, so that is one number per query and head to take off, and keys need
        not be projected once per query.

        Args:
            query: ``(B, Q, embed_dims)``.
            key: ``(B, K, embed_dims)``.
            value: As ``key``.
            hidden: True where a query must not look, ``(B, K)`` or ``(B, Q, K)``.
            key_shift: ``(B, Q, embed_dims)``, or None.
            shifted: ``(K,)``, 1 for keys that are shifted and 0 for others; needed with key_shift.

        Returns:
            ``(B, Q, embed_dims)``.
        """
        weights = self.in_proj_weight.tensor_split(3)
        biases = self.in_proj_bias.tensor_split(3)
        q, k, v = (
            self.split(F.linear(x, w, b))
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        bias = None
        if key_shift is not None:
            shift = self.split(F.linear(key_shift, weights[1]))
            off = (q * shift).sum(-1, keepdim=True) * self.head_dim**-0.5
            bias = -off * shifted
        if hidden is not None:
            hidden = hidden[:, None, None] if hidden.dim() == 2 else hidden[:, None]
            bias = q.new_zeros(()) if bias is None else bias
            bias = torch.where(hidden, float('-inf'), bias)
        if bias is not None:
            bias = bias.to(q.dtype).expand(q.shape[0], self.num_heads, q.shape[2], k.shape[2])
        dropout = self.dropout if self.training else 0.0
        out = attend(q, k, v, bias, dropout)
        merged = out.transpose(1, 2)
        if torch.compiler.is_compiling():  # what stands in for the attention lays it out otherwise
            merged = merged.clone(memory_format=torch.contiguous_format)
        return self.out_proj(merged.flatten(2))


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float
) -> Tensor:
    """``F.scaled_dot_product_attention``; with gradients on CPUs in full precision.

    There its backward pass takes three times as long in bfloat16 as in float32 (torch 2.14).
    """
    narrow = query.device.type == 'cpu' and query.dtype == torch.bfloat16
    if not (narrow and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(query, key, value, bias, dropout)
    with torch.autocast('cpu', enabled=False):
        bias = None if bias is None else bias.float()
        wide = (x.float() for x in (query, key, value))
        return F.scaled_dot_product_attention(*wide, bias, dropout).to(query.dtype)


class MultiheadAttention(nn.Module):
    """Attention with positions and a residual, as in mmcv (state-dict keys ``attn.*``).

    Args:
        embed_dims: Width of queries, keys, values and outputs.
        num_heads: Attention heads.
        head_dim: Width of a head; ``embed_dims // num_heads`` if None.
        dropout: Of attention weights and of the output.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        head_dim: int | None = None,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.attn = HeadAttention(
            embed_dims, num_heads, head_dim or embed_dims // num_heads, dropout
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        hidden: Tensor | None = None,
        key_shift: Tensor | None = None,
        shifted: Tensor | None = None,
    ) -> Tensor:
        """Attend, and add the query.

        Args:
            query: ``(B, Q, embed_dims)``.
            key: ``(B, K, embed_dims)``, also the values; the query itself if None.
            query_pos: Added to the query; as ``query``.
            key_pos: Added to keys, not to values; ``query_pos`` in self-attention.
            hidden: See :meth:`HeadAttention.forward`.
            key_shift: See there.
            shifted: See there.

        Returns:
            ``(B, Q, embed_dims)``.
        """
        if key is None:
            key, key_pos = query, query_pos
        out = self.attn(
            query if query_pos is None else query + query_pos,
            key if key_pos is None else key + key_pos,
            key,
            hidden,
            key_shift,
            shifted,
        )
        return query + self.dropout(out)
