"""Whole experts of mixtures: scores are compared, and as many weights are stacked beside the router."""

from collections.abc import Collection, Iterator

import numpy as np
from torch import Tensor, nn

from ..modules.maskable_router import spec
from ..unit_group import Attr, Cut, UnitGroup
from .labels import Ids, Labels

#: What is added to the score of a masked expert: it is never among the best.
NEVER = -1e4
#: How far above its router a mixture's experts are looked for.
LEVELS = 3


def expert_groups(model: nn.Module, labels: Labels, taken: Collection[str] = ()) -> list[UnitGroup]:
    """Groups of experts whose weights are stacked, each with its row of the router.

    An expert is chosen by its number, which labels can't follow: it is taken for the slices of equal number
    of all stacked weights around the router. A trial shows whether that is right.

    Args:
        model: The model.
        labels: What was found in a forward pass.
        taken: Names of other groups.
    """
    groups: dict[str, UnitGroup] = {}
    fewest: dict[str, int] = {}
    parameters = dict(model.named_parameters())
    for names, count in ranked(labels):
        router = next((n for n in names if n in parameters and parameters[n].dim() == 2), None)
        if router is None:
            continue
        fewest[router] = max(count, fewest.get(router, 1))
        group = expert_group(model, router, names, fewest[router], taken)
        if group is not None:
            groups[router] = group
    return list(groups.values())


def expert_group(
    model: nn.Module, router: str, names: dict[str, int], count: int, taken: Collection[str]
) -> UnitGroup | None:
    """The experts of one router; None if no stacked weights are beside it, or all of them are taken.

    Args:
        model: The model.
        router: Its weight.
        names: Tensors with an entry for each expert, and the dimension of the entries.
        count: How many experts a token takes.
        taken: Names of other groups.
    """
    size = model.get_parameter(router).shape[names[router]]
    owner, stacked = around(model, router, size)
    if not stacked or size <= count:
        return None
    holder, _, own = router.rpartition('.')
    output = last_matrix(model, stacked)
    cuts = [Cut(router, names[router])]
    cuts += [Cut(name, dim, fill=NEVER) for name, dim in names.items() if name != router]
    cuts += [
        Cut(name, 0, side='out' if name == output else 'in')
        for name in stacked
        if name not in names
    ]
    cuts.append(Cut(f'{holder}.kept_experts'.removeprefix('.'), 0, side='flag'))
    holders = {owner, holder, *(stack.rpartition('.')[0] for stack in stacked)}
    attrs = tuple(counts(model, sorted(holders), size))
    name = router if holder in taken or not holder else holder
    converts = ((holder, spec(own)),)
    return UnitGroup(name, 'expert', size, tuple(cuts), owner, attrs, converts, count)


def ranked(labels: Labels) -> Iterator[tuple[dict[str, int], int]]:
    """For each vector of scores, the tensors with a row for each of them.

    Yields:
        Their dimensions, by name, and how many of the scores are taken at least.
    """
    starts = np.array([origin.start for origin in labels.origins])
    equal: dict[bytes, list[Ids]] = {}
    for first, second in labels.ties:
        equal.setdefault(first.tobytes(), []).append(second)
        equal.setdefault(second.tobytes(), []).append(first)
    for vector, count in labels.rankings:
        seen, pending = set(), [vector]
        names: dict[str, int] = {}
        while pending:
            ids = pending.pop()
            if ids.tobytes() in seen:
                continue
            seen.add(ids.tobytes())
            pending += equal.get(ids.tobytes(), ())
            origin = labels.origins[max(int(np.searchsorted(starts, ids[0], 'right')) - 1, 0)]
            if len(ids) == origin.length and (ids == origin.start + np.arange(len(ids))).all():
                names[origin.name] = origin.dim
        if names:
            yield names, count


def around(model: nn.Module, router: str, size: int) -> tuple[str, list[str]]:
    """The innermost module around a router with stacked weights of its experts, and their names."""
    owner = router
    for _ in range(LEVELS):
        owner = owner.rpartition('.')[0]
        stacked = []
        for name, module in model.get_submodule(owner).named_modules(prefix=owner):
            own = {
                f'{name}.{key}'.removeprefix('.'): tensor
                for key, tensor in module.named_parameters(recurse=False)
                if is_stack(tensor, size)
            }
            if any(tensor.dim() == 3 for tensor in own.values()):
                stacked += [key for key in own if key != router]
        if stacked or not owner:
            return owner, stacked
    return owner, []


def counts(model: nn.Module, names: list[str], size: int) -> Iterator[Attr]:
    """Attributes of modules that say how many experts there are, read or not."""
    for name in names:
        for key, value in vars(model.get_submodule(name)).items():
            if 'expert' in key and type(value) is int and value == size:
                yield Attr(name, key)


def last_matrix(model: nn.Module, stacked: list[str]) -> str:
    """The matrices that give the experts' outputs: the last ones that were made."""
    return [name for name in stacked if model.get_parameter(name).dim() == 3][-1]


def is_stack(tensor: Tensor, size: int) -> bool:
    """Whether a tensor may have something for each of the experts."""
    return tensor.dim() in (1, 2, 3) and tensor.shape[0] == size
