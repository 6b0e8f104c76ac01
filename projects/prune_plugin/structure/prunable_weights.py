"""Which single weights of a model may be pruned, and which of them patterns choose."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.patterns import matches_within, select


def select_weights(
    weights: Mapping[str, Tensor], include: Sequence[str], exclude: Sequence[str]
) -> dict[str, Tensor]:
    """The weights that one ``include`` pattern matches and no ``exclude`` pattern."""
    return {name: weights[name] for name in select(weights, include, exclude, matches_within)}


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of linear, convolution and multi-head attention layers, by name.

    An output layer that shares its weight with an embedding is part of the embedding: left out.
    """
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = {}
    for prefix, module in model.named_modules():
        if isinstance(module, kinds) or hasattr(module, 'in_proj_weight'):
            for name, parameter in module.named_parameters(prefix, recurse=False):
                if parameter.dim() > 1 and id(parameter) not in embedded:
                    found[name] = parameter
    return found


def check_finite(weights: Mapping[str, Tensor], source: str = '') -> None:
    """Raise :class:`UserError` naming the first weight that holds NaN or infinity, after ``source``.

    Whole numbers, tensors without values (on the meta device) and what is no dense tensor pass.
    """
    for name, weight in weights.items():
        dense = isinstance(weight, Tensor) and weight.layout == torch.strided
        if not dense or weight.is_meta or not weight.is_floating_point():
            continue
        # A sum takes one pass and no memory; a finite one has finite parts, others may overflow.
        if not (weight.sum(dtype=torch.float32).isfinite() or weight.isfinite().all()):
            raise UserError(
                f'{source}{name} holds NaN or infinite numbers; the checkpoint is damaged, or its training '
                'diverged'
            )


def check_still_gone(masks: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    """Raise :class:`RuntimeError` if a later round keeps what an earlier one removed."""
    for name, keep in masks.items():
        if bool((keep.cpu() & ~before[name].cpu()).any()):
            raise RuntimeError(f'{name} has weights back that an earlier round removed')
