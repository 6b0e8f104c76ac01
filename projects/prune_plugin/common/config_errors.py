"""Errors that MMEngine's registries raise over what a config names, as a sentence."""

import inspect
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from .registry import accepted_keys

UNKNOWN_KEY = re.compile(r"got an unexpected keyword argument '(\w+)'")
MISSING_KEYS = re.compile(r'missing \d+ required \S+ arguments?: (.+)$')
#: Functions of MMEngine that build from a config, and their names for what and from which keys.
BUILDERS = dict(
    build_from_cfg=('obj_cls', 'args'), build_dataloader=('DataLoader', 'dataloader_cfg')
)
#: Once for every level of the config.
WHERE = re.compile(r'^(class `\w+` in \S+: )+')


def without_places(text: str) -> str:
    """A message without what older MMEngine puts before it: what was being built, and where from."""
    return WHERE.sub('', text)


def config_mistake(error: BaseException) -> str | None:
    """What is wrong with the config that an error is about; None if the error is another one.

    An error counts only if the key that it names stands in the config (or is missing there): the same
    error out of a call further inside is ours.

    Args:
        error: Raised while MMEngine built something from a config.
    """
    words = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(words).strip().partition('\n')[0]
    if re.search(r'is not in the \S+ registry', text):
        return without_places(text)
    unknown, missing = UNKNOWN_KEY.search(text), MISSING_KEYS.search(text)
    if unknown is None and missing is None:
        return None
    if WHERE.match(text):
        return without_places(text)
    built, deepest = what_was_built(error.__traceback__)
    if built is None:
        return None
    maker, given = built
    name = getattr(maker, '__name__', repr(maker))
    if unknown is not None and unknown[1] in given:
        return (
            f'{unknown[1]} is not a key of {name}; valid are {", ".join(keys_of(maker)) or "none"}'
        )
    return f'{name} lacks {missing[1]} in the config' if missing and deepest else None


def what_was_built(
    traceback: TracebackType | None,
) -> tuple[tuple[Callable, dict[str, Any]] | None, bool]:
    """The innermost thing that was being built from a config: it, its keys, and whether its call failed.

    Args:
        traceback: Of the error.

    Returns:
        ``(class or function, keys)``, None if nothing was built; whether no call further inside raised.
    """
    found = here = None
    while traceback is not None:
        frame = traceback.tb_frame
        values, function = {**frame.f_globals, **frame.f_locals}, frame.f_code.co_name
        maker, keys = (values.get(name) for name in BUILDERS.get(function, ('', '')))
        here = (maker, dict(keys)) if callable(maker) and isinstance(keys, Mapping) else None
        found, traceback = here or found, traceback.tb_next
    return found, here is not None


def keys_of(maker: Callable) -> list[str]:
    """The keyword arguments that a class or function takes, those that it hands on included."""
    found: dict[str, None] = {}
    for one in maker.__mro__ if inspect.isclass(maker) else [maker]:
        try:
            kinds = {p.kind for p in inspect.signature(one).parameters.values()}
        except (TypeError, ValueError):  # written in C
            break
        found.update(dict.fromkeys(accepted_keys(one)))
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return list(found)
