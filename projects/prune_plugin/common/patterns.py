"""What a regular expression in a config selects, and the error for one that selects nothing.

There is one rule: **a pattern matches a name from its start**, as ``re.match`` does, so one that is to
match in the middle begins with ``.*``. What differs from key to key is only which names a thing goes by:

- Unit groups (``include`` and ``exclude`` of a StructuredPruner) and losses (``calibration.loss_weights``)
  go by their own name: :func:`matches`.
- Weights and layers (``include``, ``exclude`` and ``layer_ratios`` of a WeightPruner, ``lora.targets``) go
  by the names of the modules around them, too: :func:`matches_within`. That makes a difference only to
  patterns that look at the end of a name: ``.*mlp$`` selects all weights in each ``mlp``. Unit groups
  aren't selected so, because ``(?!.*head).*`` would then select those inside a head as well.
- ``sharding.blocks`` lists modules one by one, so a pattern matches the whole name: :func:`matches_whole`.
  Matched from the start, ``layers.1`` would select ``layers.10`` and everything inside it, too.

A pattern that matches nothing is an error in every key: :func:`check_matches`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .errors import UserError

#: (pattern, name) -> whether the one matches the other.
Match = Callable[[str, str], bool]
#: Valid names that an error lists, at most.
SHOWN = 5


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` matches ``name`` from its start."""
    return re.match(pattern, name) is not None


def matches_within(pattern: str, name: str) -> bool:
    """Whether ``pattern`` matches, from its start, ``name`` or that of a module around it."""
    parts = name.split('.')
    return any(matches(pattern, '.'.join(parts[:end])) for end in range(1, len(parts) + 1))


def matches_whole(pattern: str, name: str) -> bool:
    """Whether ``pattern`` matches all of ``name``."""
    return re.fullmatch(pattern, name) is not None


def matches_any(patterns: Iterable[str], name: str, match: Match = matches) -> bool:
    """Whether one of ``patterns`` matches ``name``."""
    return any(match(pattern, name) for pattern in patterns)


def select(
    names: Iterable[str],
    include: Sequence[str] = ('.*',),
    exclude: Sequence[str] = (),
    match: Match = matches,
) -> list[str]:
    """The names that an ``include`` pattern matches and no ``exclude`` pattern does, in their order."""
    return [
        name
        for name in names
        if matches_any(include, name, match) and not matches_any(exclude, name, match)
    ]


def check_matches(
    key: str, patterns: Iterable[str], names: Iterable[str], what: str, match: Match = matches
) -> None:
    """Raise :class:`UserError` if a pattern matches nothing.

    Args:
        key: The key of the config that holds the patterns.
        patterns: The patterns; with ``operator.eq`` as ``match``, plain words.
        names: The valid names. The first few are listed in the message.
        what: What they are names of, in the plural.
        match: What a match is.
    """
    names = list(dict.fromkeys(names))
    for pattern in patterns:
        if not any(match(pattern, name) for name in names):
            shown = ', '.join(names[:SHOWN]) + (', ...' if len(names) > SHOWN else '')
            raise UserError(
                f'{key}: {pattern!r} matches nothing; {what} here are {shown or "none at all"}'
            )


def check_pattern(key: str, pattern: Any) -> None:
    """Raise :class:`UserError` unless ``pattern`` is a regular expression."""
    try:
        if not isinstance(pattern, str):
            raise TypeError('it must be a string')
        re.compile(pattern)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f'{key}: {pattern!r} is no regular expression ({error})') from error


def patterns_of(key: str, patterns: Any) -> list[str]:
    """A list of regular expressions, checked."""
    if isinstance(patterns, str | bytes) or not isinstance(patterns, Sequence):
        raise UserError(f'{key} is {patterns!r}; it must be a list of regular expressions')
    for pattern in patterns:
        check_pattern(key, pattern)
    return list(patterns)


def some_patterns(key: str, patterns: Any) -> list[str]:
    """:func:`patterns_of`, of which there must be at least one."""
    if not patterns:
        raise UserError(
            f'{key} is {patterns!r}; it must be a non-empty list of regular expressions'
        )
    return patterns_of(key, patterns)
