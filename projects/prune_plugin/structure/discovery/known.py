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
    by_owner: dict[str, list[UnitGroup]] = {}
    for group in plain:
        if called(group.owner, calls) == group.owner:
            by_owner.setdefault(group.owner, []).append(group)
    known: dict[tuple, tuple[str, list[str]]] = {}
    failed: dict[str, str] = {}
    proofs: dict[str, str] = {}
    for name, own in by_owner.items():
        key = layout_of(model, own)
        if key not in known:
            subject = Subject(model.get_submodule(name), calls[name])
            tried = [replace(held(group), least=max(1, group.least)) for group in own]
            alone = len(own) == 1 or bool(subject.fails(tried))
            known[key] = name, [subject.fails([g]) if alone else '' for g in tried]
        first, reasons = known[key]
        for group, reason in zip(own, reasons, strict=True):
            if reason:
                failed[group.name] = reason
            else:
                proofs[group.name] = 'tried' if first == name else f'as in {first}'
    return failed, proofs
