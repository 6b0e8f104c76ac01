"""Translates errors that MMEngine raises while building from a config into one-sentence messages."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from .registry import accepted_keys

UNKNOWN_KEY = re.compile(r"got an unexpected keyword argument '(\w+)'")
UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+) registry')
MISSING_KEYS = re.compile(r'missing \d+ required \S+ arguments?: (.+)$')
#: MMEngine's functions that build from a config: the local variables that hold the callable and its keys.
BUILDERS = dict(
    build_from_cfg=('obj_cls', 'args'), build_dataloader=('DataLoader', 'dataloader_cfg')
)
#: Prefix that older MMEngine adds once per level of nesting.
LOCATION_PREFIX = re.compile(r'^(class `\w+` in \S+: )+')


def strip_location_prefix(text: str) -> str:
    """Remove the prefix that older MMEngine adds to a message: the class being built and its file."""
    return LOCATION_PREFIX.sub('', text)


def describe_config_error(error: BaseException) -> str | None:
    """Describe the config mistake behind an error; None if the config isn't its cause.

    The config is the cause only if it contains (or lacks) the key that the error names. The same error
    raised by a nested call is a bug in the code.

    Args:
        error: Raised while MMEngine was building an object from a config.

    Returns:
        One sentence with the invalid or missing key, or None.
    """
    content = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(content).strip().partition('\n')[0]
    if match := UNKNOWN_TYPE.search(text):
        return describe_unknown_type(match[1], match[2], error.__traceback__)
    unknown, missing = UNKNOWN_KEY.search(text), MISSING_KEYS.search(text)
    if unknown is None and missing is None:
        return None
    if LOCATION_PREFIX.match(text):
        return strip_location_prefix(text)
    call, is_innermost = innermost_build(error.__traceback__)
    if call is None:
        return None
    target, keys = call
    name = getattr(target, '__name__', repr(target))
    if unknown is not None and unknown[1] in keys:
        names = constructor_keys(target)
        if unknown[1] in names:
            return f'{name} takes {unknown[1]}, but a class that it hands it on to does not: {text}'
        valid = ', '.join(names) or 'none'
        return f'{unknown[1]} is not a key of {name}; valid are {valid}'
    return f'{name} lacks {missing[1]} in the config' if missing and is_innermost else None


def describe_unknown_type(name: str, registry: str, traceback: TracebackType | None) -> str:
    """One sentence for a type that isn't registered: its key, its config, and types of similar names.

    Args:
        name: The type.
        registry: Name of the registry, as MMEngine writes it.
        traceback: The error's; what was being built is looked up in it.
    """
    config, known = None, None
    for values in local_variables(traceback):
        found = values.get('cfg')
        config = config or (found if isinstance(found, Config) else None)
        known = values['registry'] if isinstance(values.get('registry'), Registry) else known
    key = None if config is None else key_of_type(config, name)
    where = f'{key} in {config.filename}: ' if config is not None and key else ''
    close = [] if known is None else similar(name, known)
    hint = f'similar are {", ".join(close)}; ' if close else ''
    return (
        f'{where}{name} is not in the {registry} registry; {hint}a module of your own is to be named in '
        "custom_imports.imports, which replaces a _base_'s"
    )


def local_variables(traceback: TracebackType | None) -> Iterator[dict[str, Any]]:
    """The local variables of each call, the outermost first."""
    while traceback is not None:
        yield traceback.tb_frame.f_locals
        traceback = traceback.tb_next


def key_of_type(value: Any, name: str) -> str | None:
    """Where a config names a type, such as ``model.backbone.type``; None if nowhere."""
    is_config = isinstance(value, Mapping | Config)
    if is_config and value.get('type') == name:
        return 'type'
    entries = value.items() if is_config else ()
    if isinstance(value, list | tuple):
        entries = enumerate(value)
    for key, entry in entries:
        if (inner := key_of_type(entry, name)) is not None:
            dot = '' if inner.startswith('[') else '.'
            return f'[{key}].{inner}' if isinstance(key, int) else f'{key}{dot}{inner}'
    return None


def similar(name: str, registry: Registry) -> list[str]:
    """Up to three registered names like one that isn't, whatever their case."""
    while registry.parent is not None:
        registry = registry.parent
    known, left = {}, [registry]
    while left:
        one = left.pop()
        known.update({other.lower(): other for other in one.module_dict})
        left += one.children.values()
    return [known[other] for other in get_close_matches(name.lower(), sorted(known))]


def innermost_build(
    traceback: TracebackType | None,
) -> tuple[tuple[Callable, dict[str, Any]] | None, bool]:
    """Return the innermost call built from a config, and whether the error was raised by that very call.

    Args:
        traceback: The error's traceback.

    Returns:
        ``(class or function, keyword arguments)``, or None if nothing was being built; and True if no
        nested call raised the error.
    """
    innermost = current = None
    while traceback is not None:
        frame = traceback.tb_frame
        values, function = {**frame.f_globals, **frame.f_locals}, frame.f_code.co_name
        target, keys = (values.get(name) for name in BUILDERS.get(function, ('', '')))
        current = (target, dict(keys)) if callable(target) and isinstance(keys, Mapping) else None
        innermost, traceback = current or innermost, traceback.tb_next
    return innermost, current is not None


def constructor_keys(target: Callable) -> list[str]:
    """Keyword arguments that a class or function accepts, including those passed to base classes."""
    keys: dict[str, None] = {}
    for function in target.__mro__ if inspect.isclass(target) else [target]:
        try:
            kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        except (TypeError, ValueError):  # implemented in C
            break
        keys.update(dict.fromkeys(accepted_keys(function)))
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return list(keys)
