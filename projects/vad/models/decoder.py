"""Decoders: objects and map elements from the BEV, and plain cross-attention between queries."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmengine.registry import MODELS
from torch import Tensor, nn

from .attention import MultiheadAttention
from .on_device import constant


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of ``x``, with x and 1 - x kept above ``eps``."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


@dataclass
class Decoded:
    """What a decoder found, layer by layer.

    Attributes:
        states: ``(layers, B, Q, embed_dims)``.
        codes: Outputs of the layers' regression branches, ``(layers, B, Q, code)``, float32.
        references: The reference points that each layer's codes are relative to, before the
            sigmoid: ``(layers, B, Q, 2 or 3)``.
    """

    states: Tensor
    codes: Tensor
    references: Tensor


@MODELS.register_module()
class VADDecoderLayer(nn.Module):
    """Self-attention between queries, cross-attention to the BEV and FFN, each with a norm.

    Args:
        cross_attn: Config of the deformable attention to the BEV.
        embed_dims: Width of queries.
        num_heads: Heads of the self-attention.
        feedforward_channels: Hidden width of the FFN.
        dropout: Of attention and FFN.
    """

    def __init__(
        self,
        cross_attn: dict,
        embed_dims: int = 256,
        num_heads: int = 8,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__()
        attention = MultiheadAttention(embed_dims, num_heads, dropout=dropout)
        self.attentions = nn.ModuleList([attention, MODELS.build(cross_attn)])
        self.ffns = nn.ModuleList([FFN(embed_dims, feedforward_channels, ffn_drop=dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(embed_dims) for _ in range(3)])

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        bev: Tensor,
        reference_points: Tensor,
        shape: tuple[int, int],
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Refine queries ``(B, Q, embed_dims)``; ``reference_points`` is ``(B, Q, 2)``.

        Nobody looks at queries that are ``hidden``, ``(1, Q)``.
        """
        query = self.norms[0](self.attentions[0](query, query_pos=query_pos, hidden=hidden))
        query = self.attentions[1](query, bev, query_pos, reference_points, [shape])
        return self.norms[2](self.ffns[0](self.norms[1](query)))


class RefiningDecoder(nn.Module):
    """Layers each of which moves the reference points for the next (Deformable DETR).

    Args:
        num_layers: Layers.
        layer: Config of one.
    """

    #: Which entries of a regression code move which coordinates of the reference point.
    code_index: ClassVar[list[int]]

    def __init__(self, num_layers: int, layer: dict):
        super().__init__()
        self.layers = nn.ModuleList([MODELS.build(layer) for _ in range(num_layers)])

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        bev: Tensor,
        reference_points: Tensor,
        shape: tuple[int, int],
        branches: nn.ModuleList,
        hidden: Tensor | None = None,
    ) -> Decoded:
        """Decode.

        Args:
            query: ``(B, Q, embed_dims)``.
            query_pos: As ``query``.
            bev: ``(B, h * w, embed_dims)``.
            reference_points: ``(B, Q, 2 or 3)`` in [0, 1].
            shape: h and w.
            branches: The layers' regression branches.
            hidden: True for queries that the others must not see, ``(1, Q)``; None hides none.
        """
        states, codes, references = [], [], []
        moving = constant(tuple(self.code_index), query, torch.long)
        points = reference_points
        for layer, branch in zip(self.layers, branches, strict=True):
            query = layer(query, query_pos, bev, points[..., :2], shape, hidden)
            with torch.autocast(query.device.type, enabled=False):  # positions: no half floats
                code, logit = branch(query).float(), inverse_sigmoid(points.float())
            states.append(query)
            codes.append(code)
            references.append(logit)
            points = (code[..., moving] + logit).sigmoid().detach()
        return Decoded(torch.stack(states), torch.stack(codes), torch.stack(references))


@MODELS.register_module()
class DetectionTransformerDecoder(RefiningDecoder):
    """Of objects: reference points x, y, z, moved by codes 0, 1 and 4."""

    code_index: ClassVar[list[int]] = [0, 1, 4]


@MODELS.register_module()
class MapDetectionTransformerDecoder(RefiningDecoder):
    """Of map points: reference points x, y."""

    code_index: ClassVar[list[int]] = [0, 1]


class CrossAttentionLayer(nn.Module):
    """Attention of queries to keys and FFN, each followed by a norm.

    Args:
        embed_dims: Width of queries and keys.
        num_heads: Attention heads.
        feedforward_channels: Hidden width of the FFN.
        dropout: Of attention and FFN.
    """

    def __init__(self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float):
        super().__init__()
        self.attentions = nn.ModuleList(
            [MultiheadAttention(embed_dims, num_heads, dropout=dropout)]
        )
        self.ffns = nn.ModuleList([FFN(embed_dims, feedforward_channels, ffn_drop=dropout)])
        self.norms = nn.ModuleList([nn.LayerNorm(embed_dims) for _ in range(2)])

    def forward(self, query: Tensor, **kwargs) -> Tensor:
        """Refine queries; arguments are those of :class:`MultiheadAttention`."""
        query = self.norms[0](self.attentions[0](query, **kwargs))
        return self.norms[1](self.ffns[0](query))


@MODELS.register_module()
class CustomTransformerDecoder(nn.Module):
    """Queries that look at other queries: agents at agents and lanes, the ego at both.

    Args:
        num_layers: Layers.
        embed_dims: Width of queries and keys.
        num_heads: Attention heads.
        feedforward_channels: Hidden width of the FFN.
        dropout: Of attention and FFN.
    """

    def __init__(
        self,
        num_layers: int = 1,
        embed_dims: int = 256,
        num_heads: int = 8,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                CrossAttentionLayer(embed_dims, num_heads, feedforward_channels, dropout)
                for _ in range(num_layers)
            ]
        )

    def forward(self, query: Tensor, **kwargs) -> Tensor:
        """Refine queries ``(B, Q, embed_dims)``; arguments as of :class:`MultiheadAttention`.

        Without a ``key``, every layer attends to the queries it is given.
        """
        for layer in self.layers:
            query = layer(query, **kwargs)
        return query
