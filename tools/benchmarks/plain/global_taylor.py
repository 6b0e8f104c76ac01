"""First-order Taylor scores of units, chosen over the whole model or layer by layer.

A unit's importance is the sum of ``|w x dL/dw|`` over its weights, with the gradient added up over the
calibration sequences (Ma et al., LLM-Pruner, arXiv 2305.11627). Over the whole model, units go by
their importance per parameter, the lowest first; in the per-layer form every layer loses the same
number of MLP channels.
"""

import torch
from torch import Tensor, nn

from .cutting import Table, sum_units, unit_costs


def importance(model: nn.Module, sequences: list[Tensor]) -> Table:
    """First-order Taylor importance of every unit; all gradients are kept until the end."""
    model.zero_grad()
    for sequence in sequences:
        model(sequence, labels=sequence).loss.backward()
    table = sum_units(model, lambda weight: (weight.detach() * weight.grad).abs())
    model.zero_grad()
    return table


def global_choice(model: nn.Module, scores: Table, ratio: float) -> Table:
    """Kept units of a knapsack by score per parameter; one unit stays per layer and kind.

    Args:
        model: The model, for its parameters.
        scores: From :func:`importance`.
        ratio: Fraction of all parameters to remove, tied ones counted once; not exceeded.
    """
    costs = unit_costs(model)
    target = ratio * sum(parameter.numel() for parameter in model.parameters())
    units = [
        (score / costs[key], key, unit)
        for key, values in scores.items()
        for unit, score in enumerate(values.tolist())
    ]
    gone: dict[tuple[int, str], set[int]] = {key: set() for key in scores}
    removed = 0
    for _, key, unit in sorted(units):
        fits = removed + costs[key] <= target
        if fits and len(gone[key]) + 1 < len(scores[key]):
            gone[key].add(unit)
            removed += costs[key]
    return {
        key: torch.tensor([unit for unit in range(len(values)) if unit not in gone[key]])
        for key, values in scores.items()
    }


def uniform_choice(model: nn.Module, scores: Table, ratio: float) -> Table:
    """Kept units if every layer loses the same number of MLP channels and nothing else.

    Arguments as for :func:`global_choice`.
    """
    costs = unit_costs(model)
    target = ratio * sum(parameter.numel() for parameter in model.parameters())
    channels = min(len(values) for (_, kind), values in scores.items() if kind == 'mlp')
    each = sum(cost for (_, kind), cost in costs.items() if kind == 'mlp')
    drop = min(round(target / each), channels - 1)
    kept = {}
    for (index, kind), values in scores.items():
        order = values.argsort(stable=True)
        kept[index, kind] = order[drop if kind == 'mlp' else 0 :].sort().values
    return kept
