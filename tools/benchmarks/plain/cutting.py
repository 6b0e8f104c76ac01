"""Cutting GQA groups and MLP channels out of a plain Llama: costs, choices, slicing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Per layer and kind ('attention', 'mlp'), one value per unit, or kept indices.
Table = dict[tuple[int, str], Tensor]


def unit_slices(model: nn.Module) -> dict[tuple[int, str], list[tuple[nn.Linear, int, int]]]:
    """By layer and kind: the linear layers a unit is made of, the dimension it cuts, and its width."""
    config = model.config
    head = config.head_dim
    queries = config.num_attention_heads // config.num_key_value_heads * head
    found = {}
    for index, block in enumerate(model.model.layers):
        own, mlp = block.self_attn, block.mlp
        found[index, 'attention'] = [
            (own.q_proj, 0, queries),
            (own.k_proj, 0, head),
            (own.v_proj, 0, head),
            (own.o_proj, 1, queries),
        ]
        found[index, 'mlp'] = [(mlp.gate_proj, 0, 1), (mlp.up_proj, 0, 1), (mlp.down_proj, 1, 1)]
    return found


def sum_units(model: nn.Module, value: Callable[[nn.Parameter], Tensor]) -> Table:
    """Sum of ``value(weight)`` over the weights of every unit, float64 (units,) per layer and kind."""
    table = {}
    for key, parts in unit_slices(model).items():
        total = 0.0
        for layer, dim, width in parts:
            lines = value(layer.weight).double().sum(1 - dim)
            total = total + lines.view(-1, width).sum(1)
        table[key] = total
    return table


def unit_costs(model: nn.Module) -> dict[tuple[int, str], int]:
    """Parameters of one unit, per layer and kind."""
    counts = sum_units(model, lambda weight: torch.ones_like(weight))
    return {key: int(count[0]) for key, count in counts.items()}


@torch.no_grad()
def cut(model: nn.Module, kept: Table) -> None:
    """Keep only these units, in place."""
    for key, parts in unit_slices(model).items():
        for layer, dim, width in parts:
            units = kept[key]
            lines = (units[:, None] * width + torch.arange(width)).flatten()
            layer.weight = nn.Parameter(layer.weight.index_select(dim, lines))
            layer.out_features, layer.in_features = layer.weight.shape
