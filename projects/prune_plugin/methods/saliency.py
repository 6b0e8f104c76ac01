"""Saliency of single weights, and what it implies for the units that they belong to."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..common.precision import at_least_float32
from ..structure.unit_group import UnitGroup, sum_per_unit, weight_cuts
from .weight_masks import keep_largest


def remaining_shares(
    groups: Sequence[UnitGroup], tensors: dict[str, Tensor], ratio: float
) -> list[Tensor]:
    """Fraction of each unit's input-side weights that global magnitude pruning keeps.

    The weights that compute units (the ``'in'`` side of the groups' cuts) are pruned together, over all
    groups.

    Args:
        groups: Unit groups.
        tensors: The model's parameters by name.
        ratio: Fraction of these weights removed.

    Returns:
        One tensor per group, float64 (units,) in [0, 1].
    """
    cuts = [list(weight_cuts(group, tensors, 'in')) for group in groups]
    names = list(dict.fromkeys(cut.name for group_cuts in cuts for cut in group_cuts))
    if not names:
        return [torch.zeros(group.size, dtype=torch.float64) for group in groups]
    flat = torch.cat([tensors[name].detach().abs().float().flatten() for name in names])
    parts = keep_largest(flat, ratio).split([tensors[name].numel() for name in names])
    masks = {name: part.view(tensors[name].shape) for name, part in zip(names, parts, strict=True)}
    shares = []
    for group, group_cuts in zip(groups, cuts, strict=True):
        kept = torch.zeros(group.size, dtype=torch.float64)
        total = torch.zeros(group.size, dtype=torch.float64)
        for cut in group_cuts:
            kept += sum_per_unit(masks[cut.name].double(), cut, group.size).cpu()
            total += sum_per_unit(torch.ones(masks[cut.name].shape), cut, group.size)
        shares.append(kept / total.clamp_min(1))
    return shares


def wanda_elements(weight: Tensor, input_rms: Tensor, dim: int = 1) -> Tensor:
    """Wanda scores ``|W_ij| * ||x_j||``: each weight times the root mean square of its input feature.

    Args:
        weight: (out, in, ...).
        input_rms: (in,).
        dim: The dimension of the inputs, where it is another one.

    Returns:
        Scores, shaped as ``weight``.
    """
    weight = at_least_float32(weight)
    shape = [1] * weight.dim()
    shape[dim] = -1
    return weight.abs() * input_rms.reshape(shape).to(weight)
