"""The plugin's registries, and the one way to build from them.

MMEngine's own root registries (``MODELS``, ``HOOKS``, ``LOOPS`` ...) take what the Runner builds;
these take the parts of pruning itself.
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
PENALTIES = Registry('penalty', scope='mmengine')
PRUNERS = Registry('pruner', scope='mmengine')


def accepted_keys(cls: Callable) -> list[str]:
    """Names of the keyword arguments that ``cls(...)`` takes from a config."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]


def build(registry: Registry, cfg: Mapping, key: str) -> Any:
    """Build ``cfg`` (a dict with ``type``) from ``registry``, checking every key first.

    Args:
        registry: One of the registries above.
        cfg: The config block.
        key: Where the block stands in the user's config, for messages (``prune_cfg.criterion``).

    Raises:
        UserError: no or unknown ``type``, an unknown key, or a missing one.
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
        said = str(error)
        raise UserError(said if said.startswith('prune_cfg') else f'{key}.{said}') from error
