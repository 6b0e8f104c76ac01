"""Which attributes and sizes must follow the number of units: the first choice that a trial passes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from ..modules.inferred_sizes import Failure, failing_reshape, parse, spec
from ..unit_group import Attr, UnitGroup
from .proof import NO_EFFECT, Subject

#: Most combinations of attributes that are tried.
TRIALS = 24
#: Most attributes that are added one by one.
MOST_ADDED = 5
Bundle = tuple[Attr, ...]
NONE: Bundle = ()


def proven(subject: Subject, group: UnitGroup, attrs: Sequence[Attr]) -> UnitGroup | str:
    """The group with the attributes that must follow it, or why no choice of them is right.

    As few attributes as possible are taken; sizes in the code are inferred where no choice is right.

    Args:
        subject: The group's owner; names in the group are those on trial.
        group: The group, without attributes.
        attrs: Integers that may follow the number of units.
    """
    if not (reason := subject.fails([group])):
        return group
    if reason == NO_EFFECT:
        return reason
    subject.trials = 0
    options = list(choices(group, attrs, numbers_in(reason)))
    for mend in (False, True):
        for chosen in ((), *options) if mend else options:
            if subject.trials > (1 + mend) * TRIALS:
                break
            trial = replace(group, attrs=chosen)
            found = repaired(subject, trial, mend=mend)
            if not isinstance(found, str):
                return found
    return climbed(subject, group, bundles_of(attrs)[:TRIALS]) or reason


def climbed(subject: Subject, group: UnitGroup, bundles: Sequence[Bundle]) -> UnitGroup | None:
    """Attributes added one by one, each time the one with which the forward pass comes furthest.

    Args:
        subject: The group's owner.
        group: The group, without attributes.
        bundles: What may be added.

    Returns:
        The group with what makes it pass; None if nothing does.
    """
    subject.counts_steps, subject.steps = True, 0
    chosen = NONE
    try:
        repaired(subject, group, mend=False)
        for _ in range(MOST_ADDED):
            furthest, best = subject.steps, NONE
            for bundle in bundles:
                if set(bundle) & set(chosen):
                    continue
                found = repaired(subject, replace(group, attrs=chosen + bundle), mend=False)
                if not isinstance(found, str):
                    return found
                if subject.error is not None and subject.steps > furthest:
                    furthest, best = subject.steps, bundle
            if not best:
                return None
            chosen, subject.steps = chosen + best, furthest
    finally:
        subject.counts_steps = False
    return None


def numbers_in(text: str) -> set[int]:
    """All whole numbers in a message."""
    return set(map(int, re.findall(r'\d+', text)))


def choices(group: UnitGroup, attrs: Sequence[Attr], hints: set[int]) -> Iterator[tuple[Attr, ...]]:
    """Choices of attributes that may be right, the likelier ones first.

    Args:
        group: The group.
        attrs: All attributes.
        hints: Numbers in the message of what failed without any.
    """
    bundles = bundles_of(attrs)
    named = [b for b in bundles if b[0].dense(group.size) in hints]
    seen = set()
    for some in (named, bundles):
        for length in (len(some), 1, 2):
            for picked in combinations(some, length) if length <= len(some) else ():
                chosen = sum(picked, ())
                if chosen and chosen not in seen:
                    seen.add(chosen)
                    yield chosen


def bundles_of(attrs: Sequence[Attr]) -> list[Bundle]:
    """Attributes that go together: the same one of all blocks."""
    alike: dict[tuple[str, str], list[Attr]] = {}
    for attr in attrs:
        alike.setdefault((attr.module.rpartition('.')[2], attr.name), []).append(attr)
    return [tuple(bundle) for bundle in alike.values()]


def repaired(
    subject: Subject, group: UnitGroup, mend: bool = True, before: Failure | None = None
) -> UnitGroup | str:
    """The group if it passes; else with sizes inferred where a reshape fails; or why it doesn't pass.

    Args:
        subject: The group's owner.
        group: The group.
        mend: Whether sizes may be inferred.
        before: Where the reshape failed that was mended last.
    """
    subject.trials += 1
    reason = subject.fails([group])
    if not reason:
        return group
    if not mend or subject.trials > 2 * TRIALS or subject.error is None or subject.slim is None:
        return reason
    failure = failing_reshape(subject.error, subject.slim)
    if failure is None or (before is not None and failure.place == before.place):
        return reason
    for size in failure.sizes:
        trial = with_inferred(group, failure, size)
        found = repaired(subject, trial, True, failure) if trial is not None else reason
        if not isinstance(found, str):
            return found
    return reason


def with_inferred(group: UnitGroup, failure: Failure, size: tuple[int, int]) -> UnitGroup | None:
    """A group with one more size to infer; None if one of that call is inferred already."""
    converts = []
    sizes = [size]
    for name, converter in group.converts:
        known = parse(converter)
        if name == failure.module and known is not None and known[0] == failure.method:
            sizes = [*known[1], size]
        else:
            converts.append((name, converter))
    if len({call for call, _ in sizes}) < len(sizes):
        return None
    return replace(group, converts=(*converts, (failure.module, spec(failure.method, sizes))))
