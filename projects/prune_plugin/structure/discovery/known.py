"""Proving groups that layouts know by the names of classes."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ...common.errors import first_line
from ..unit_group import UnitGroup
from .call import Call
from .captures import called, captured, of_features
from .proof import Subject
from .trials import held, is_large, is_plain, is_tried_whole, layout_of, together


def trials(
    model: nn.Module, groups: Sequence[UnitGroup], call: Call
) -> tuple[dict[str, str], dict[str, str]]:
    """Try each distinct layout on a copy of its module, then all together on a copy of the model.

    Args:
        model: The model.
        groups: Groups that layouts gave.
        call: An example call.

    Returns:
        Why groups don't pass, by name, and how those that pass were proven; groups that the call doesn't
        reach are in neither.
    """
    fixed = {group.name for group in groups if group.size <= group.least}
    plain = [g for g in groups if is_plain(g) and g.owner and g.name not in fixed]
    calls = captured(model, call, {g.owner for g in plain})
    whole = of_features(model, call)
    by_owner: dict[str, list[UnitGroup]] = {}
    for group in plain:
        if called(group.owner, calls) == group.owner:
            by_owner.setdefault(group.owner, []).append(group)
    known: dict[tuple, tuple[str, list[str]]] = {}
    failed: dict[str, str] = {}
    proofs = dict.fromkeys(fixed, 'with nothing that can go')
    for name, own in by_owner.items():
        key = layout_of(model, own, calls[name])
        if key not in known:
            tried = [replace(held(group), least=max(1, group.least)) for group in own]
            try:
                subject = Subject(model.get_submodule(name), calls[name])
                alone = len(own) == 1 or bool(subject.fails(tried))
                reasons = [subject.fails([g]) if alone else '' for g in tried]
                if any(reasons) and is_tried_whole(model, whole) and subject.is_relaxed():
                    reasons = [subject.fails([g]) for g in tried]
            except Exception as error:  # whatever its classes raise
                reasons = [f'it can not be copied for a trial ({first_line(error)})'] * len(own)
            known[key] = name, reasons
        first, reasons = known[key]
        for group, reason in zip(own, reasons, strict=True):
            if reason:
                failed[group.name] = reason
            else:
                proofs[group.name] = 'tried' if first == name else f'as in {first}'
    left = [group for group in groups if group.name not in fixed | failed.keys()]
    if left and not is_large(model):
        good, why = together(model, whole, left)
        failed |= why
        proofs = {name: how for name, how in proofs.items() if name in good | fixed}
    return failed, proofs
