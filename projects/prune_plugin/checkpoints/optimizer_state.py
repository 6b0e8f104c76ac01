"""Carrying an optimizer's state (momenta, variances) over to the slim model."""

import logging
from collections.abc import Mapping
from copy import deepcopy

import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import Tensor, nn

from ..structure.prune_state import PruneState
from ..structure.slimming import cut_tensor


def build_quietly(model: nn.Module, optim_wrapper: Mapping) -> OptimWrapper:
    """The config's optimizer, without MMEngine's lines on every parameter's options."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return build_optim_wrapper(model, deepcopy(dict(optim_wrapper)))
    finally:
        logger.setLevel(level)


def parameter_order(model: nn.Module, optim_wrapper: Mapping) -> list[str]:
    """Names of the parameters in the order in which the config's optimizer numbers them.

    Raises:
        TypeError: the config has several optimizers.
    """
    wrapper = build_quietly(model, optim_wrapper)
    if isinstance(wrapper, OptimWrapperDict):
        raise TypeError('several optimizers')
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in wrapper.optimizer.param_groups for p in group['params']]


def slim_optimizer_state(
    optimizer: Mapping, before: list[str], after: list[str], state: PruneState
) -> dict[int, dict]:
    """Per-parameter optimizer state for the slim model.

    Args:
        optimizer: ``checkpoint['optimizer']`` of the model before pruning.
        before: That model's :func:`parameter_order`.
        after: The slim model's.
        state: What was cut, relative to the model before pruning.

    Returns:
        ``optimizer['state']`` renumbered, with tensors shaped as parameters cut like them.
    """
    number = {name: i for i, name in enumerate(after)}
    removed: dict[str, dict[int, Tensor]] = {}
    for (name, dim), indices in state.removed_indices().items():
        removed.setdefault(name, {})[dim] = indices
    result = {}
    for index, entries in optimizer.get('state', {}).items():
        name = before[index]
        if name not in number:
            continue
        cuts = removed.get(name, {})
        result[number[name]] = {
            key: cut_tensor(value, cuts) if torch.is_tensor(value) and value.dim() else value
            for key, value in entries.items()
        }
    return result
