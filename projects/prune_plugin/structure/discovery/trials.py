"""Trying groups of units on copies: each block by itself, then all together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ...common.errors import first_line
from ..modules.eager_experts import has_experts_kernel
from ..unit_group import Cut, UnitGroup
from .attribute_search import numbers_in, proven
from .attributes import Reads
from .attributes import candidates as attribute_candidates
from .call import Call
from .candidates import compact
from .other_ways import Way, other_ways
from .proof import CHANGED, NO_EFFECT, Subject

#: Parameters of a model from which on it isn't copied as a whole.
LARGE = 1_000_000_000
#: Cuts of slices of tensors; others stand for something else.
PLAIN = ('in', 'out', 'index')


@dataclass
class Discovery:
    """What was found.

    Attributes:
        groups: Proven groups.
        refused: ``{module: reason}`` for what was tried in vain.
        proofs: How each group was proven: tried itself, or like another one.
    """

    groups: list[UnitGroup] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    proofs: dict[str, str] = field(default_factory=dict)


def held(group: UnitGroup) -> UnitGroup:
    """A group with the names that it has on trial (see :class:`Subject`)."""

    def own(name: str) -> str:
        inner = name[len(group.owner) :].removeprefix('.')
        return f'held.{inner}' if inner else 'held'

    return replace(
        group,
        cuts=tuple(replace(cut, name=own(cut.name)) for cut in group.cuts),
        converts=tuple((own(m), c) for m, c in group.converts),
        attrs=tuple(replace(a, module=own(a.module)) for a in group.attrs),
        emptied=(),
    )


def released(name: str, owner: str) -> str:
    """The name in the model of what is called ``name`` on trial."""
    inner = name.removeprefix('held').removeprefix('.')
    return '.'.join(part for part in (owner, inner) if part)


def experts_in(model: nn.Module, group: UnitGroup) -> list[tuple[str, str]]:
    """Experts that a group cuts and that may run one by one."""
    modules = dict(model.named_modules())
    holders = dict.fromkeys(cut.name.rpartition('.')[0] for cut in group.cuts)
    return [(name, 'EagerExperts') for name in holders if has_experts_kernel(modules[name])]


def layout_of(model: nn.Module, groups: Sequence[UnitGroup], call: Call) -> tuple:
    """Blocks of equal class, shapes and flags, that are called alike, are cut alike."""
    owner = model.get_submodule(groups[0].owner)
    shapes = tuple((n, tuple(p.shape)) for n, p in owner.named_parameters())
    cuts = tuple((g.kind, g.size, g.cuts, g.converts) for g in map(held, groups))
    flags = tuple(
        (name, key, value)
        for name, module in owner.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | str) and key != 'training'
    )
    arguments, _ = tree_flatten((call.args, call.kwargs))
    return type(owner), shapes, cuts, flags, tuple(map(kind_of_argument, arguments))


def kind_of_argument(value: Any) -> Any:
    """What of an argument decides which way a block takes."""
    if isinstance(value, Tensor):
        return value.dim(), value.dtype
    return value if isinstance(value, bool | str) or value is None else type(value)


def prove(
    model: nn.Module,
    groups: list[UnitGroup],
    calls: dict[str, Call],
    reads: Reads,
    known_groups: Sequence[UnitGroup],
    result: Discovery,
) -> None:
    """Try each layout on a copy of its owner, then all groups together on a copy of the model."""
    by_owner: dict[str, list[UnitGroup]] = {}
    for group in groups:
        by_owner.setdefault(group.owner, []).append(group)
    known: dict[tuple, tuple[str, list[UnitGroup | str]]] = {}
    for name, own in by_owner.items():
        key = layout_of(model, own, calls[name])
        if not name and is_large(model):
            reason = 'its owner is the whole model, which is too large to be copied for a trial'
            result.refused |= {group.name: reason for group in own}
            continue
        if key not in known:
            known[key] = name, tried(model, name, calls, own, reads)
        first, answers = known[key]
        for group, answer in zip(own, answers, strict=True):
            if isinstance(answer, str):
                result.refused[group.name] = answer
                continue
            converts = tuple((released(m, name), c) for m, c in answer.converts)
            attrs = tuple(replace(a, module=released(a.module, name)) for a in answer.attrs)
            whole = coarser(group, group.size // answer.size)
            result.groups.append(replace(whole, attrs=attrs, converts=converts))
            result.proofs[group.name] = 'tried' if first == name else f'as in {first}'
    if result.groups and not is_large(model):
        prove_together(model, calls[''], known_groups, result)
    order = {group.name: place for place, group in enumerate(groups)}
    result.groups.sort(key=lambda group: order[group.name])


def is_plain(group: UnitGroup) -> bool:
    """Whether a group can be tried: it owns slices of tensors, not whole layers, queries or the like."""
    if group.is_whole or group.repeated:
        return False
    return group.kind == 'expert' or all(cut.side in PLAIN for cut in group.cuts)


def is_large(model: nn.Module) -> bool:
    """Whether copies of the whole model may not fit into memory: then its blocks alone are tried."""
    return sum(p.numel() for p in model.parameters()) > LARGE


def is_tried_whole(model: nn.Module, call: Call) -> bool:
    """Whether all that the model gives is compared in the end, and not its features alone.

    Args:
        model: The model.
        call: By which it is compared as a whole.
    """
    return not is_large(model) and not call.method


def tried(
    model: nn.Module, owner: str, calls: dict[str, Call], groups: list[UnitGroup], reads: Reads
) -> list[UnitGroup | str]:
    """Each group of an owner as on trial, with its attributes; or why it can't be cut.

    All are tried at once; where that fails, one by one.
    """
    try:
        subject = Subject(model.get_submodule(owner), calls[owner], strict=not owner)
    except Exception as error:  # whatever its classes raise
        return [f'it can not be copied for a trial ({first_line(error)})'] * len(groups)
    guesses = [held(group) for group in groups]
    if len(groups) > 1 and not subject.fails(guesses):
        return list(guesses)
    found = [tried_alone(model, subject, group, reads) for group in groups]
    if any(isinstance(f, str) and f.startswith(CHANGED) for f in found):
        if is_tried_whole(model, calls['']) and subject.is_relaxed():
            found = [tried_alone(model, subject, group, reads) for group in groups]
    return found


def tried_alone(
    model: nn.Module, subject: Subject, group: UnitGroup, reads: Reads
) -> UnitGroup | str:
    """A group as on trial, with its attributes; or why it can't be cut."""
    attrs = held(replace(group, attrs=tuple(attribute_candidates(model, group, reads)))).attrs
    subject.passes_half = False
    first: UnitGroup | str = ''
    for trial in variants(model, group):
        factor = group.size // trial.size
        if factor > 1 and not (subject.passes_half or experts_in(model, group)):
            continue
        finer = replace(held(group), attrs=attrs)
        found = proven(subject, held(trial), coarser(finer, factor).attrs)
        if not isinstance(found, str):
            return found
        if found == NO_EFFECT:
            return found
        first = first or found
    hints = numbers_in(str(first))
    more = attribute_candidates(model, group, reads, hints)
    if len(more) == len(attrs):
        return first
    found = proven(subject, held(group), held(replace(group, attrs=tuple(more))).attrs)
    return first if isinstance(found, str) else found


def variants(model: nn.Module, group: UnitGroup) -> Iterator[UnitGroup]:
    """A group as it is, and in sets of units that odd kernels can do with."""
    yield group
    experts = experts_in(model, group)
    for factor in (8,) if experts else (2, 4):
        if group.size % factor == 0 and group.size >= 8 * factor:
            yield coarser(group, factor)
    if experts:
        yield replace(group, converts=(*group.converts, *experts))


def coarser(group: UnitGroup, factor: int) -> UnitGroup:
    """A group whose units are sets of ``factor`` neighbours each."""
    if factor == 1:
        return group

    def merged(cut: Cut) -> Cut:
        if cut.table is None and len(cut.sections) == 1:
            return replace(cut, width=cut.width * factor)
        rows = cut.indices(group.size).reshape(group.size // factor, -1).sort(dim=1).values
        return replace(compact(cut.name, cut.dim or 0, rows.numpy(), cut.side), fill=cut.fill)

    return replace(
        group,
        size=group.size // factor,
        cuts=tuple(map(merged, group.cuts)),
        attrs=tuple(replace(a, per_unit=a.per_unit * factor) for a in group.attrs),
    )


def prove_together(
    model: nn.Module, call: Call, known: Sequence[UnitGroup], result: Discovery
) -> None:
    """All groups at once on the whole model; those that don't go together with the others are refused."""
    good, reasons = together(model, call, [*known, *result.groups])
    result.refused |= reasons
    result.groups = [group for group in result.groups if group.name in good]


def together(
    model: nn.Module, call: Call, groups: Sequence[UnitGroup]
) -> tuple[set[str], dict[str, str]]:
    """The names of groups that go together on a copy of the model, and why the others don't.

    Each was tried in its block before, where masking it has an effect; it may have none on what the model
    gives, as behind a norm over a single feature.
    """
    plain = [group for group in groups if is_plain(group)]
    others = {group.name for group in groups} - {group.name for group in plain}
    try:
        subject = Subject(model, call, strict=True)
    except Exception as error:  # whatever its classes raise
        reason = f'the model can not be copied for a trial ({first_line(error)})'
        return others, {group.name: reason for group in plain}
    whole = {g.name: held(replace(g, owner='', least=max(1, g.least))) for g in plain}
    refused: dict[str, str] = {}
    ways = [Way(subject), *other_ways(subject)]

    def accepted(before: list[str], more: list[str]) -> list[str]:
        chosen = [whole[name] for name in (*before, *more)]
        reason = next(filter(None, (way.difference(chosen) for way in ways)), '')
        if not reason:
            return [*before, *more]
        if len(more) == 1:
            refused[more[0]] = reason
            return before
        half = len(more) // 2
        return accepted(accepted(before, more[:half]), more[half:])

    good = set(accepted([], list(whole))) if whole else set()
    return good | others, refused
