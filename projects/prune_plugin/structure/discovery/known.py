"""Proving groups that layouts know by the names of classes."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ..unit_group import UnitGroup
from .call import Call
from .discover import called, captured, held, layout_of
from .proof import Subject

#: Cuts that stand for something else than slices of a tensor.
PLAIN = ('in', 'out', 'index')


def trials(
    model: nn.Module, groups: Sequence[UnitGroup], call: Call
) -> tuple[dict[str, str], dict[str, str]]:
    """Try each distinct layout on a copy of its module.

    Args:
        model: The model.
        groups: Groups that layouts gave.
        call: An example call.

    Returns:
        Why groups don't pass, by name, and how those that pass were proven; groups that the call doesn't
        reach are in neither.
    """
    plain = [g for g in groups if all(c.side in PLAIN and c.dim is not None for c in g.cuts)]
    plain = [g for g in plain if not g.repeated and g.owner]
    calls = captured(model, call, {g.owner for g in plain})
    subjects: dict[str, Subject] = {}
    known: dict[tuple, tuple[str, str]] = {}
    failed: dict[str, str] = {}
    proofs: dict[str, str] = {}
    for group in plain:
        if called(group.owner, calls) != group.owner:
            continue
        key = layout_of(model, [group])
        if key not in known:
            if group.owner not in subjects:
                subjects.clear()
                subjects[group.owner] = Subject(
                    model.get_submodule(group.owner), calls[group.owner]
                )
            own = replace(held(group), least=max(1, group.least))
            known[key] = subjects[group.owner].fails([own]), group.name
        reason, of = known[key]
        if reason:
            failed[group.name] = reason
        else:
            proofs[group.name] = 'tried' if of == group.name else f'as {of}'
    return failed, proofs
