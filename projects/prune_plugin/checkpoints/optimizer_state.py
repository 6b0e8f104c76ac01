"""Transferring an optimizer's state (momenta, variances) to the slim model."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import Tensor, nn

from ..common.terminal import hidden_from_terminal
from ..structure.prune_state import PruneState
from ..structure.slimming import cut_tensor


def build_quietly(model: nn.Module, optim_wrapper: Mapping) -> OptimWrapper:
    """Build the config's optimizer with MMEngine's messages about every parameter in the log file alone.

    Mixed precision, which may need a GPU, doesn't matter to the order and the state of parameters.
    """
    optim_wrapper = {
        k: v for k, v in optim_wrapper.items() if k not in ('type', 'loss_scale', 'dtype')
    }
    with hidden_from_terminal():
        return build_optim_wrapper(model, deepcopy(dict(optim_wrapper)))


def parameter_order(model: nn.Module, optim_wrapper: Mapping) -> list[str]:
    """Names of the parameters in the order of their indices in the optimizer's state dict.

    Raises:
        TypeError: the config has several optimizers.
    """
    wrapper = build_quietly(model, optim_wrapper)
    if isinstance(wrapper, OptimWrapperDict):
        raise TypeError('several optimizers')
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in wrapper.optimizer.param_groups for p in group['params']]


def misfit(optimizer: Mapping, optim_wrapper: Mapping) -> str:
    """Why a checkpoint's optimizer state is none of the config's optimizer; empty if it is.

    Args:
        optimizer: ``checkpoint['optimizer']``.
        optim_wrapper: Of the config.
    """
    saved = {key for entries in (optimizer.get('state') or {}).values() for key in entries}
    if not saved:
        return ''
    model = nn.Linear(1, 1)
    made = build_quietly(model, optim_wrapper)
    if isinstance(made, OptimWrapperDict):
        return 'the config has several optimizers'
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.optimizer.step()
    own = {key for entries in made.optimizer.state.values() for key in entries}
    # What is None now may come later, as a momentum does that is switched on.
    if saved == own:
        return ''
    return (
        f'it holds {", ".join(sorted(saved))}, and {type(made.optimizer).__name__} keeps '
        f'{", ".join(sorted(own)) or "nothing"}'
    )


def slim_optimizer_state(
    optimizer: Mapping, prior_order: list[str], slim_order: list[str], state: PruneState
) -> dict[int, dict]:
    """Convert per-parameter optimizer state to the slim model.

    Args:
        optimizer: ``checkpoint['optimizer']`` of the model before pruning.
        prior_order: :func:`parameter_order` of that model.
        slim_order: :func:`parameter_order` of the slim model.
        state: The prune state, relative to the model before pruning.

    Returns:
        ``optimizer['state']`` with the slim model's indices; tensors are cut like their parameters.
    """
    index_of = {name: i for i, name in enumerate(slim_order)}
    removed: dict[str, dict[int, Tensor]] = {}
    for (name, dim), indices in state.removed_indices().items():
        removed.setdefault(name, {})[dim] = indices
    result = {}
    for index, entries in optimizer.get('state', {}).items():
        name = prior_order[index]
        if name not in index_of:
            continue
        cuts = removed.get(name, {})
        result[index_of[name]] = {
            key: cut_tensor(value, cuts) if torch.is_tensor(value) and value.dim() else value
            for key, value in entries.items()
        }
    return result
