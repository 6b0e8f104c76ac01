"""The plugin's registries, and :func:`build`, which checks a config block and builds from it.

What the Runner builds is registered in MMEngine's root registries (``MODELS``, ``HOOKS``, ``LOOPS`` ...).
The registries here hold the components of pruning.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.registry import Registry

from .errors import UserError

UNITS = Registry('unit finder', scope='mmengine')
CRITERIA = Registry('criterion', scope='mmengine')
BUDGETS = Registry('budget', scope='mmengine')
ALLOCATORS = Registry('allocator', scope='mmengine')
SCHEDULES = Registry('schedule', scope='mmengine')
SPARSIFIERS = Registry('sparsifier', scope='mmengine')
COMPENSATIONS = Registry('compensation', scope='mmengine')
RECONSTRUCTIONS = Registry('reconstruction', scope='mmengine')
PENALTIES = Registry('penalty', scope='mmengine')
PRUNERS = Registry('pruner', scope='mmengine')
#: Modules that run a file of another engine, by how such files' names end.
ENGINE_FILES = Registry('engine file', scope='mmengine')


def accepted_keys(cls: Callable) -> list[str]:
    """Names of the keyword arguments that ``cls(...)`` accepts from a config, in their order."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]


def build_optional(registry: Registry, cfg: Mapping | None, key: str) -> Any:
    """As :func:`build`; None for None."""
    return None if cfg is None else build(registry, cfg, key)


def build(registry: Registry, cfg: Mapping, key: str) -> Any:
    """Build an object from ``cfg``, a dict with ``type``; every key is checked first.

    Args:
        registry: One of the registries above.
        cfg: The config block.
        key: Path of the block in the user's config, for messages (``prune_cfg.criterion``).

    Raises:
        UserError: ``type`` is missing or unknown, a key is unknown, or a required key is missing.
    """
    if not isinstance(cfg, Mapping):
        raise UserError(f"{key} is {cfg!r}; it must be a dict with a 'type'")
    kwargs = {name: value for name, value in cfg.items() if name != 'type'}
    valid = sorted(registry.module_dict)
    name = cfg.get('type')
    cls = registry.module_dict.get(name) if isinstance(name, str) else None
    if cls is None:
        raise UserError(f'{key}.type is {name!r}; valid are {", ".join(valid)}')
    accepted = accepted_keys(cls)
    for unknown in (k for k in kwargs if k not in accepted):
        raise UserError(
            f'{key}.{unknown} is not a key of {name}; valid are {", ".join(accepted) or "none"}'
        )
    parameters = inspect.signature(cls).parameters
    for missing in (
        k for k in accepted if parameters[k].default is inspect._empty and k not in kwargs
    ):
        raise UserError(f'{key}.{missing} is missing; {name} needs it')
    try:
        return cls(**kwargs)
    except UserError as error:
        message = str(error)
        has_path = message.startswith('prune_cfg')
        raise UserError(message if has_path else f'{key}.{message}') from error
