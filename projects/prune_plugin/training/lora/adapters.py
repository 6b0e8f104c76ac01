"""Low-rank adapters (LoRA): choosing layers, and building a model that trains only its adapters."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from ...common.errors import UserError
from ...common.patterns import check_matches, matches_within, select, some_patterns
from ...common.validation import at_least, check_number

KEYS = ('r', 'alpha', 'dropout', 'targets', 'lr')
#: Modules that use the weight of their child ``out_proj`` without calling the child.
READ_BY_PARENT = (nn.MultiheadAttention,)


def check_lora(lora: Any) -> None:
    """Raise :class:`UserError` if ``lora`` isn't a valid ``prune_cfg.recovery.lora``, or without peft."""
    if find_spec('peft') is None:
        raise UserError(
            'lora needs the package peft, which is not installed; run: pip install peft'
        )
    if not isinstance(lora, Mapping):
        raise UserError(f'lora is {lora!r}; it must be a dict, dict() for the defaults')
    for name in lora:
        if name not in KEYS:
            raise UserError(f'lora.{name} is not a key; valid are {", ".join(KEYS)}')
    at_least('lora.r', lora.get('r', 8), 1)
    check_number('lora.alpha', lora.get('alpha', 16), 0, float('inf'))
    check_number('lora.dropout', lora.get('dropout', 0.0), 0, 1, least=True)
    if lora.get('lr') is not None:
        check_number('lora.lr', lora['lr'], 0, float('inf'))
    if lora.get('targets') is not None:
        some_patterns('lora.targets', lora['targets'])


def adaptable(model: nn.Module) -> dict[str, nn.Linear]:
    """Linear layers that can have adapters, by name.

    Left out are layers whose weight is tied to another module's (merging would change both), and those
    whose weight is used by the parent module directly.
    """
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    not_called = {id(m.out_proj) for m in model.modules() if isinstance(m, READ_BY_PARENT)}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and uses[id(module.weight)] == 1
        and id(module) not in not_called
    }


def chosen_layers(model: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """Names of the :func:`adaptable` layers that match one of the patterns; all for None.

    Raises:
        UserError: there is no such layer, or a pattern matches none.
    """
    names = list(adaptable(model))
    key = 'prune_cfg.recovery.lora.targets'
    if not names:
        raise UserError(
            f'{key}: {type(model).__name__} has no linear layer that adapters can be added to'
        )
    if targets is None:
        return names
    check_matches(key, targets, names, 'linear layers', matches_within)
    return select(names, targets, match=matches_within)


def add_adapters(
    model: nn.Module,
    targets: Sequence[str] | None = None,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
) -> nn.Module:
    """Add low-rank adapters to linear layers, in place, and freeze all other parameters.

    The names in the state dict don't change: there the adapters are merged into the weights.

    Args:
        model: The model.
        targets: Regular expressions on names of linear layers; None: all.
        r: Rank.
        alpha: The product of the two factors is scaled by ``alpha / r``.
        dropout: Dropout rate on the adapters' input.

    Returns:
        The model.

    Raises:
        UserError: see :func:`chosen_layers`.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.functional import cast_adapter_dtype

    from .lora_linear import ADAPTER, LoraLinear

    names = chosen_layers(model, targets)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # annotated as int, but any number works
        lora_dropout=dropout,
        target_modules='|'.join(map(re.escape, names)),
    )
    config._register_custom_module({nn.Linear: LoraLinear})
    inject_adapter_in_model(config, model, ADAPTER)
    cast_adapter_dtype(model, ADAPTER)  # float32 where weights have less
    return model


@MODELS.register_module(name='LoraModel')
def build_lora_model(
    model: dict,
    targets: Sequence[str] | None = None,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
) -> nn.Module:
    """Build ``model`` and add adapters; returns the inner model itself, as ``SlimModel`` does.

    Its weights are loaded from a checkpoint (``load_from``). Training needs the ``LoraHook``.

    Args:
        model: Config of the model, ``SlimModel`` or not.
        targets: See :func:`add_adapters`, also for the other arguments.

    Example:
        >>> model = dict(type='LoraModel', model=dict(type='HFCausalLM', ...), r=8)
        >>> custom_hooks = [dict(type='LoraHook')]
    """
    built = MODELS.build(model)
    for module in built.modules():  # MMEngine's initialisation doesn't handle adapters
        if hasattr(module, 'init_cfg'):
            module.init_cfg = None
            module._is_init = True
    return add_adapters(built, targets, r, alpha, dropout)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the layers with adapters."""
    for name, module in model.named_modules():
        if getattr(module, 'holds_adapters', False):
            yield name, module


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by their names in the state dict, including base weights of layers with adapters."""
    parameters = dict(model.named_parameters())
    for name, layer in lora_layers(model):
        for key, parameter in layer.base_layer.named_parameters(recurse=False):
            parameters[f'{name}.{key}'] = parameter
    return parameters
