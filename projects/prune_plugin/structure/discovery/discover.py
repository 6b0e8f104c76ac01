"""Unit groups of modules that no layout knows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from os.path import commonprefix

import torch
from torch import nn

from ...common.errors import UserError, first_line
from ...common.eval_mode import evaluation_mode
from ...common.unchanged import unchanged
from ..unit_group import UnitGroup, named_tensors
from .attributes import Reads, recorded
from .call import Call
from .candidates import Candidate, candidates, disjoint
from .captures import called, captured, of_features
from .experts import expert_groups
from .forward import run
from .proof import without_cache
from .tracer import Tracer
from .trials import Discovery, prove


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
        except UserError as error:
            raise UserError(
                f'prune_cfg: {type(model).__name__} is not followed: {error}'
            ) from error
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
    """Modules whose weights took no part in the run, with the widths that these weights read."""
    found = {}
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        widths = {length for p in own if p.dim() > 1 for length in p.shape[1:]}
        if widths and not any(tracer.names[p] in tracer.used for p in own):
            found[name] = widths
    return found


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
            reader = reader or own_reader(model, lengths)
            result.refused[group.name] = (
                f'{reader} may read it, which the example input does not reach'
            )
    return kept


def own_reader(model: nn.Module, lengths: set[int]) -> str:
    """The model's own parameter, in none of its modules, that reads one of these widths."""
    own = model.named_parameters(recurse=False)
    return next(name for name, p in own if p.dim() > 1 and lengths & set(p.shape[1:]))


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
