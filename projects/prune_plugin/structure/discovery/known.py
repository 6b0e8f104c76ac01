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


def proven_groups(
    model: nn.Module, groups: Sequence[UnitGroup], call: Call
) -> tuple[list[UnitGroup], dict[str, str], dict[str, str]]:
    """Try each distinct layout on a copy of its module.

    Args:
        model: The model.
        groups: Groups that layouts gave.
        call: An example call.

    Returns:
        The groups that pass or that weren't reached by the call, why the others don't pass, and how those
        that pass were proven.
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
    return [g for g in groups if g.name not in failed], failed, proofs
