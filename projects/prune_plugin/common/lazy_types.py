"""MMEngine's pure-Python configs, in which a type is a class: they become configs with names.

So whoever looks at a type sees the same in both kinds of configs.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import Registry


def all_registries() -> Iterator[Registry]:
    """MMEngine's registries and those of other packages below them."""
    stack = [value for value in vars(registries).values() if isinstance(value, Registry)]
    while stack:
        registry = stack.pop()
        yield registry
        stack += registry.children.values()


def use_names(cfg: Config) -> None:
    """Replace classes and functions under ``type`` by their names in a registry, in place.

    What is in none stays as it is.
    """
    names: dict[Any, str] = {}

    def name_of(kind: Any) -> Any:
        if not names:
            for registry in all_registries():
                scope = '' if registry.scope == 'mmengine' else f'{registry.scope}.'
                for name, value in registry.module_dict.items():
                    known = names.get(value)
                    if known is None or (not scope and '.' in known):
                        names[value] = f'{scope}{name}'
        try:
            return names.get(kind, kind)
        except TypeError:  # can't be a key
            return kind

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            kind = value.get('type')
            if inspect.isclass(kind) or inspect.isfunction(kind):
                value['type'] = name_of(kind)
            for inner in list(value.values()):
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk(cfg._cfg_dict)
