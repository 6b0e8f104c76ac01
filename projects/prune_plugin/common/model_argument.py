"""The check of what is given as a model, shared by all that take one."""

import os
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from .errors import UserError, format_value


def check_model(model: Any) -> None:
    """Raise :class:`UserError` unless this is a module whose parameters have shapes.

    Args:
        model: What was given as a model; its weights may be on the meta device.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f'the model is {described(model)}')
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            kind = type(model.get_submodule(name.rpartition('.')[0])).__name__
            raise UserError(
                f'{name} has no shape before {kind} has seen an input; call the model once, then prune it'
            )


def described(value: Any) -> str:
    """What was given instead of a model, and what is valid."""
    valid = 'it must be a torch.nn.Module'
    if isinstance(value, type):
        return f'the class {value.__name__}; {valid}, an instance of it for example'
    if isinstance(value, Mapping):
        return f'a {type(value).__name__}; {valid}, with these weights loaded into it'
    if isinstance(value, str | os.PathLike):
        return f'{format_value(os.fspath(value))}; {valid}, such as load_model(cfg, path).model'
    return f'{"None" if value is None else f"a {type(value).__name__}"}; {valid}'


def has_meta_weights(model: nn.Module) -> bool:
    """Whether a parameter of the model is on the meta device, so that it has a shape and no values."""
    return any(parameter.is_meta for parameter in model.parameters())


def check_values(
    tensors: Mapping[str, Any],
    reader: str,
    cause: BaseException | None = None,
    instead: str = "load the weights, or plan by shapes alone: criterion=dict(type='Random')",
) -> None:
    """Raise :class:`UserError` if one of these tensors is on the meta device: it has a shape and no values.

    Args:
        tensors: Parameters and buffers by name.
        reader: What reads them, for the message.
        cause: The error that came of it.
        instead: What to do.
    """
    name = next((name for name, tensor in tensors.items() if tensor.is_meta), None)
    if name is not None:
        raise UserError(
            f'{name} is on the meta device and has no values, but {reader}; {instead}'
        ) from cause
