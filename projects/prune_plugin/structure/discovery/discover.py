"""Unit groups of modules that no layout knows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os.path import commonprefix

import torch
from torch import nn

from ...common.errors import UserError, first_line
from ...common.eval_mode import evaluation_mode
from ...common.unchanged import unchanged
from ..modules.eager_experts import has_experts_kernel
from ..unit_group import Cut, UnitGroup, named_tensors
from .attributes import Reads, recorded
from .attributes import candidates as attribute_candidates
from .call import Call
from .candidates import Candidate, candidates, compact, disjoint
from .captures import called, captured, of_features
from .experts import expert_groups
from .forward import run
from .proof import NO_EFFECT, Subject, numbers_in, proven, without_cache
from .tracer import Tracer

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


def discover_units(
    model: nn.Module,
    call: Call,
    known: Sequence[UnitGroup] = (),
    choose: Callable[[list[Candidate]], list[Candidate]] | None = None,
) -> Discovery:
    """Find groups of units by what a model computes, and prove each on a copy.

    Args:
        model: The model.
        call: An example call.
        known: Groups that are there already: what they own isn't looked at.
        choose: Which of the candidates to take; None: all inside of blocks (:func:`offered`), and experts.
    """
    result = Discovery()
    tracer, reads = traced(model, call)
    found, why = candidates(tracer.labels)
    for (name, _), reason in why.items():
        if name.endswith('.weight'):
            result.refused[name.removesuffix('.weight')] = reason
    free = disjoint([*map(as_candidate, known), *found])[len(known) :]
    chosen = offered(model, free, known) if choose is None else choose(free)
    taken = {group.name for group in known}
    groups = named(model, chosen, taken)
    groups = without_unseen(model, groups, unseen(model, tracer), result)
    experts = expert_groups(model, tracer.labels, taken) if choose is None else []
    groups += [group for group in experts if is_free(group, [*known, *groups])]
    owners = {group.owner for group in groups}
    calls = captured(model, call, owners)
    groups = [replace(g, owner=called(g.owner, calls)) for g in groups]
    calls |= captured(model, call, {g.owner for g in groups} - calls.keys())
    calls[''] = of_features(model, call)
    prove(model, groups, calls, reads, known, result)
    return result


def traced(model: nn.Module, call: Call) -> tuple[Tracer, Reads]:
    """Run a model with labels; which integers it reads, if it runs while that is recorded.

    Raises:
        UserError: it doesn't run while its labels are followed, though it does without.
    """
    with evaluation_mode(model), without_cache(model), unchanged(model):
        try:
            with recorded(model) as reads:
                return run(model, call.copied()), reads
        except Exception:  # it may ask for its own class, which recording changes
            pass
        try:
            return run(model, call.copied()), {}
        except Exception as error:  # whatever its code raises
            raise UserError(
                f'prune_cfg: {type(model).__name__} does not run while its operations are followed '
                f'({type(error).__name__}: {first_line(error)}); name its units in prune_cfg.units'
            ) from error


def unseen(model: nn.Module, tracer: Tracer) -> dict[str, set[int]]:
    """Modules with weights that took no part, with all lengths of their weights' dimensions."""
    found = {}
    for name, module in model.named_modules():
        own = {
            f'{name}.{n}'.removeprefix('.'): p for n, p in module.named_parameters(recurse=False)
        }
        named = {n: p for n, p in own.items() if p in tracer.names}
        if named and not any(tracer.names[p] in tracer.used for p in named.values()):
            found[name] = {length for p in named.values() if p.dim() > 1 for length in p.shape[1:]}
    return {name: lengths for name, lengths in found.items() if lengths}


def without_unseen(
    model: nn.Module,
    groups: list[UnitGroup],
    modules: dict[str, set[int]],
    result: Discovery,
) -> list[UnitGroup]:
    """Groups without those whose units a module may read that the example doesn't reach.

    Args:
        model: The model.
        groups: Groups of units.
        modules: See :func:`unseen`.
        result: Gets the reasons.
    """
    kept = []
    for group in groups:
        lengths = {
            dict_tensor(model, c.name).shape[c.dim or 0] for c in group.cuts if c.side == 'out'
        }
        inside = [name for name in modules if not group.owner or name.startswith(f'{group.owner}.')]
        reader = next((name for name in inside if modules[name] & lengths), None)
        if reader is None:
            kept.append(group)
        else:
            result.refused[group.name] = (
                f'{reader} may read it, which the example input does not reach'
            )
    return kept


def is_free(group: UnitGroup, others: Sequence[UnitGroup]) -> bool:
    """Whether no other group cuts the same dimension of a tensor."""
    taken = {(cut.name, cut.dim) for other in others for cut in other.cuts}
    return not any((cut.name, cut.dim) in taken for cut in group.cuts)


def as_candidate(group: UnitGroup) -> Candidate:
    """A known group among candidates."""
    return Candidate(group.size, tuple(c for c in group.cuts if c.dim is not None))


def offered(
    model: nn.Module, found: list[Candidate], known: Sequence[UnitGroup]
) -> list[Candidate]:
    """The units inside of blocks, and those of shared widths whose weights are mostly out of reach."""
    sizes = {name: p.numel() for name, p in model.named_parameters(remove_duplicate=False)}
    inner = [c for c in found if not c.added]
    reached = {cut.name for group in known for cut in group.cuts}
    reached |= {cut.name for candidate in inner for cut in candidate.cuts}
    kept = list(inner)
    tables = {f'{n}.weight' for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    for candidate in found:
        names = {cut.name for cut in candidate.cuts}
        if candidate.added and not names & tables:  # the width of a language model's stream stays
            total = sum(sizes.get(n, 0) for n in names)
            if sum(sizes.get(n, 0) for n in names - reached) > total / 2:
                kept.append(candidate)
    return kept


def named(model: nn.Module, found: list[Candidate], taken: set[str]) -> list[UnitGroup]:
    """Candidates as groups, in module order, each with a name and an owner."""
    modules = dict(model.named_modules())
    order = {name: i for i, name in enumerate(modules)}
    names_of: dict[int, set[str]] = {}
    for name, tensor in named_tensors(model).items():
        if (holder := name.rpartition('.')[0]) in modules:  # else a second name of a module
            names_of.setdefault(id(tensor), set()).add(holder)
    groups = []
    for candidate in found:
        holders: set[str] = set()  # also those that share a tensor
        for cut in candidate.cuts:
            holders |= names_of[id(dict_tensor(model, cut.name))]
        producers = [
            cut.name.rpartition('.')[0]
            for cut in candidate.cuts
            if cut.side == 'in' and dict_tensor(model, cut.name).dim() > 1
        ]
        producer = min(producers or holders, key=order.__getitem__)
        owner = common_module(holders)
        kind = kind_of(candidate, modules, holders)
        cut_names = {cut.name for cut in candidate.cuts}
        whole = all(
            f'{owner}.{name}' in cut_names or name in cut_names or p.dim() < 2
            for name, p in modules[owner].named_parameters()
        )
        name = owner if kind == 'attention' or (kind == 'mlp' and whole and owner) else producer
        groups.append(
            UnitGroup(
                name, kind, candidate.size, candidate.cuts, owner,
                converts=candidate.norms, least=0 if kind == 'mlp' else 1,
            )
        )  # fmt: skip
    groups.sort(key=lambda g: order[g.name])
    result = []
    for group in groups:
        name, number = group.name or 'model', 2
        while name in taken:
            name, number = f'{group.name or "model"}#{number}', number + 1
        taken.add(name)
        result.append(replace(group, name=name))
    return result


def dict_tensor(model: nn.Module, name: str) -> torch.Tensor:
    """A parameter or buffer by name."""
    path, _, own = name.rpartition('.')
    return getattr(model.get_submodule(path), own)


def common_module(names: set[str]) -> str:
    """The innermost module that contains all of these."""
    parts = commonprefix([name.split('.') for name in names])
    return '.'.join(parts)


def kind_of(candidate: Candidate, modules: dict[str, nn.Module], holders: set[str]) -> str:
    """The kind of unit, for reports."""
    if candidate.attended:
        return 'attention'
    if candidate.added:
        return 'coupled'
    convolutions = any('Conv' in type(modules[h]).__name__ for h in holders)
    return 'channel' if convolutions else 'mlp'


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


def layout_of(model: nn.Module, groups: Sequence[UnitGroup]) -> tuple:
    """Blocks of equal layout are cut alike."""
    owner = model.get_submodule(groups[0].owner)
    shapes = tuple((n, tuple(p.shape)) for n, p in owner.named_parameters())
    cuts = tuple((g.kind, g.size, g.cuts, g.converts) for g in map(held, groups))
    return type(owner), shapes, cuts


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
        key = layout_of(model, own)
        if not name and is_large(model):
            reason = 'its owner is the whole model, which is too large to be copied for a trial'
            result.refused |= {group.name: reason for group in own}
            continue
        if key not in known:
            known[key] = name, tried(model, name, calls[name], own, reads)
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
    if any(cut.dim is None for cut in group.cuts) or group.repeated:
        return False
    return group.kind == 'expert' or all(cut.side in PLAIN for cut in group.cuts)


def is_large(model: nn.Module) -> bool:
    """Whether copies of the whole model may not fit into memory: then its blocks alone are tried."""
    return sum(p.numel() for p in model.parameters()) > LARGE


def tried(
    model: nn.Module, owner: str, call: Call, groups: list[UnitGroup], reads: Reads
) -> list[UnitGroup | str]:
    """Each group of an owner as on trial, with its attributes; or why it can't be cut.

    All are tried at once; where that fails, one by one.
    """
    try:
        subject = Subject(model.get_submodule(owner), call, strict=not owner)
    except Exception as error:  # whatever its classes raise
        return [f'it can not be copied for a trial ({first_line(error)})'] * len(groups)
    guesses = [held(group) for group in groups]
    if len(groups) > 1 and not subject.fails(guesses):
        return list(guesses)
    return [tried_alone(model, subject, group, reads) for group in groups]


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
    """The names of groups that go together on a copy of the model, and why the others don't."""
    plain = [group for group in groups if is_plain(group)]
    others = {group.name for group in groups} - {group.name for group in plain}
    try:
        subject = Subject(model, call, strict=True)
    except Exception as error:  # whatever its classes raise
        reason = f'the model can not be copied for a trial ({first_line(error)})'
        return others, {group.name: reason for group in plain}
    whole = {g.name: held(replace(g, owner='', least=max(1, g.least))) for g in plain}
    refused: dict[str, str] = {}

    def accepted(before: list[str], more: list[str]) -> list[str]:
        reason = subject.difference([whole[name] for name in (*before, *more)], 0)
        if not reason:
            return [*before, *more]
        if len(more) == 1:
            refused[more[0]] = reason
            return before
        half = len(more) // 2
        return accepted(accepted(before, more[:half]), more[half:])

    good = set(accepted([], list(whole))) if whole else set()
    if good and subject.has_no_effect([whole[name] for name in whole if name in good]):
        refused |= dict.fromkeys(good, NO_EFFECT)
        good = set()
    return good | others, refused
