"""Low-rank adapters (LoRA): which layers get them, and building a model that trains nothing else."""

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
#: Modules that read their linear layer's weight and never call the layer.
READ_BY_PARENT = (nn.MultiheadAttention,)


def check_lora(lora: Any) -> None:
    """Raise :class:`UserError` unless ``lora`` may stand in ``prune_cfg.recovery``."""
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
    """Linear layers that may have adapters, by name.

    Not those that share their weight with another module (merging would change that one too), nor
    those whose weight is read by the module around them.
    """
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    read = {id(m.out_proj) for m in model.modules() if isinstance(m, READ_BY_PARENT)}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and owners[id(module.weight)] == 1
        and id(module) not in read
    }


def chosen_layers(model: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """Names of the linear layers that the patterns choose; all of them without patterns.

    Raises:
        UserError: a pattern matches none.
    """
    names = list(adaptable(model))
    key = 'prune_cfg.recovery.lora.targets'
    if not names:
        raise UserError(f'{key}: {type(model).__name__} has no linear layer of its own weight')
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
    """Give linear layers low-rank adapters, in place, and freeze everything else.

    The function of the model doesn't change, nor do the names in its state dict: there the adapters
    are merged into the weights.

    Args:
        model: The model.
        targets: Patterns on names of linear layers; None: all.
        r: Rank.
        alpha: The product of the adapters is scaled by ``alpha / r``.
        dropout: On the adapters' input.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.functional import cast_adapter_dtype

    from .lora_linear import ADAPTER, LoraLinear

    names = chosen_layers(model, targets)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
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
    """Build ``model`` and add adapters: the inner model itself comes back, as with ``SlimModel``.

    Its weights come from a checkpoint (``load_from``), and training it needs ``LoraHook``.

    Args:
        model: Config of the model, ``SlimModel`` or not.
        targets: See :func:`add_adapters`; likewise the others.

    Example:
        >>> model = dict(type='LoraModel', model=dict(type='HFCausalLM', ...), r=8)
        >>> custom_hooks = [dict(type='LoraHook')]
    """
    built = MODELS.build(model)
    for module in built.modules():  # initialising would not know the adapters
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
    """The parameters by their names in the state dict; frozen weights under adapters included."""
    found = dict(model.named_parameters())
    for name, layer in lora_layers(model):
        for key, parameter in layer.base_layer.named_parameters(recurse=False):
            found[f'{name}.{key}'] = parameter
    return found
