"""The prune state: which units of the dense model are left, as plain data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError, first_line, format_value
from .modules import CONVERTERS
from .unit_group import Attr, Cut, UnitGroup

VERSION = 1


@dataclass
class PruneState:
    """Kept units of each group, by indices of the dense model.

    Attributes:
        groups: Unit groups of the dense model, by name.
        kept: For each group a sorted LongTensor of the units that stay.
        asked: What was asked for (``{'budget': 'params', 'ratio': 0.3}``), ratio = fraction removed.
        achieved: What came of it, fractions removed by quantity.
    """

    groups: dict[str, UnitGroup]
    kept: dict[str, Tensor]
    asked: dict[str, Any] = field(default_factory=dict)
    achieved: dict[str, Any] = field(default_factory=dict)

    @property
    def reduced(self) -> list[UnitGroup]:
        """Groups that lose at least one unit."""
        return [g for n, g in self.groups.items() if len(self.kept[n]) < g.size]

    @property
    def removed_layers(self) -> list[str]:
        """Names of the layers that go as a whole."""
        return [
            name
            for name, g in self.groups.items()
            if g.kind == 'layer' and not len(self.kept[name])
        ]

    def removed(self, name: str) -> Tensor:
        """Sorted indices of the units of group ``name`` that go."""
        gone = torch.ones(self.groups[name].size, dtype=torch.bool)
        gone[self.kept[name]] = False
        return gone.nonzero().flatten()

    def digest(self) -> str:
        """A hash of the kept indices: equal on all ranks, or something is wrong."""
        sha = hashlib.sha256()
        for name in sorted(self.kept):
            sha.update(f'{name}:{self.groups[name].size}:'.encode())
            sha.update(self.kept[name].numpy().tobytes())
        return sha.hexdigest()

    def removed_indices(self) -> dict[tuple[str, int], Tensor]:
        """For each (tensor, dimension) that shrinks: the sorted indices that go."""
        removed: dict[tuple[str, int], list[Tensor]] = {}
        for group in self.reduced:
            gone = self.removed(group.name)
            for cut in group.cuts:
                if cut.dim is not None:
                    rows = cut.indices(group.size)[gone].flatten()
                    removed.setdefault((cut.name, cut.dim), []).append(rows)
        return {key: torch.cat(rows).unique() for key, rows in removed.items()}

    def to_dict(self) -> dict:
        """Plain data: dicts, lists, strings and numbers only."""
        groups = {}
        for name, group in self.groups.items():
            groups[name] = dict(
                kind=group.kind,
                size=group.size,
                kept=self.kept[name].tolist(),
                owner=group.owner,
                least=group.least,
                layer_idx=group.layer_idx,
                cuts=[cut_to_dict(cut) for cut in group.cuts],
                attrs=[[a.module, a.name, a.per_unit] for a in group.attrs],
                converts=[list(pair) for pair in group.converts],
                repeated=list(group.repeated),
                emptied=[list(pair) for pair in group.emptied],
            )
        return dict(version=VERSION, asked=self.asked, achieved=self.achieved, groups=groups)

    @classmethod
    def from_dict(cls, data: Mapping) -> 'PruneState':
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: the data isn't a prune state of this version; the message names the entry.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get('groups'), Mapping):
            raise UserError("prune_state is not a prune state: it needs 'version' and 'groups'")
        version = data.get('version')
        if type(version) is not int or version != VERSION:
            raise UserError(f'prune_state.version is {format_value(version)}; valid is {VERSION}')
        said = {key: data.get(key, {}) for key in ('asked', 'achieved')}
        for key, value in said.items():
            if not isinstance(value, Mapping):
                raise UserError(f'prune_state.{key} is {format_value(value)}; it must be a dict')
        state = cls({}, {}, **{key: dict(value) for key, value in said.items()})
        for name, entry in data['groups'].items():
            try:
                state.groups[name] = group_from_dict(name, entry)
                state.kept[name] = kept_from_list(entry['kept'], entry['size'])
            except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(
                    f'prune_state.groups[{name!r}] is malformed: {first_line(error)}'
                ) from error
        return state


def cut_to_dict(cut: Cut) -> dict:
    """A cut as plain data."""
    return dict(
        name=cut.name,
        dim=cut.dim,
        width=cut.width,
        sections=list(cut.sections),
        side=cut.side,
        table=None if cut.table is None else [list(row) for row in cut.table],
        fill=cut.fill,
    )


def group_from_dict(name: str, entry: Mapping) -> UnitGroup:
    """A unit group from plain data, every number checked."""
    word(name)
    size = natural(entry['size'])
    cuts = tuple(
        Cut(
            word(cut['name']),
            None if cut['dim'] is None else natural(cut['dim']),
            natural(cut['width']),
            tuple(natural(s) for s in cut['sections']),
            word(cut['side']),
            None if cut['table'] is None else tuple(tuple(map(natural, r)) for r in cut['table']),
            float(cut.get('fill', 0.0)),
        )
        for cut in entry['cuts']
    )
    if not cuts:
        raise ValueError('it has no cuts')
    for cut in cuts:
        check_cut(cut, size)
    converts, emptied = (
        tuple((word(module), word(converter)) for module, converter in entry.get(key, ()))
        for key in ('converts', 'emptied')
    )
    for _, converter in (*converts, *emptied):
        if converter not in CONVERTERS:
            raise ValueError(f'no converter {converter!r}; valid are {", ".join(CONVERTERS)}')
    attrs = tuple(Attr(word(m), word(a), natural(n)) for m, a, n in entry['attrs'])
    return UnitGroup(
        name, word(entry['kind']), size, cuts, word(entry['owner']), attrs, converts,
        natural(entry['least']), natural(entry['layer_idx']),
        tuple(word(pattern) for pattern in entry.get('repeated', ())), emptied,
    )  # fmt: skip


def check_cut(cut: Cut, size: int) -> None:
    """Raise :class:`ValueError` unless a cut gives each of ``size`` units a share of its own."""
    if cut.dim is None and size != 1:
        raise ValueError(f'{cut.name!r} belongs to one unit as a whole, but there are {size}')
    if not cut.width or not cut.sections:
        raise ValueError(f'the units own nothing of {cut.name!r}')
    if cut.table is None:
        return
    if len(cut.table) != size:
        raise ValueError(f'the table of {cut.name!r} has {len(cut.table)} rows, not {size}')
    if len({len(row) for row in cut.table}) != 1 or not cut.table[0]:
        raise ValueError(f'the rows of the table of {cut.name!r} differ in length, or are empty')


def word(value: Any) -> str:
    """``value`` if it is a string."""
    if not isinstance(value, str):
        raise ValueError(f'{format_value(value)} is not a name')
    return value


def natural(value: Any) -> int:
    """``value`` if it is an int >= 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'{format_value(value)} is not a whole number >= 0')
    return value


def kept_from_list(kept: list[int], size: int) -> Tensor:
    """Kept indices as a LongTensor, checked to be sorted, unique and below ``size``."""
    tensor = torch.tensor([natural(k) for k in kept], dtype=torch.long)
    if len(tensor) and (int(tensor[-1]) >= size or bool((tensor.diff() <= 0).any())):
        raise ValueError(f'kept indices must ascend and stay below {size}')
    return tensor


def compose(first: PruneState | None, second: PruneState) -> PruneState:
    """The state that does ``first`` on the dense model and then ``second`` on what is left.

    Args:
        first: State of the model that was pruned again, relative to the dense model, or None.
        second: State of the second pruning, relative to that slim model.

    Returns:
        One state relative to the dense model.
    """
    if first is None:
        return second
    gone = first.removed_indices()
    groups, kept = dict(first.groups), dict(first.kept)
    for name, group in second.groups.items():
        if name in first.groups:
            kept[name] = first.kept[name][second.kept[name]]
        else:
            cuts = tuple(to_dense_indices(cut, group.size, gone) for cut in group.cuts)
            groups[name], kept[name] = replace(group, cuts=cuts), second.kept[name]
    return PruneState(groups, kept, second.asked, second.achieved)


def to_dense_indices(cut: Cut, size: int, removed: dict[tuple[str, int], Tensor]) -> Cut:
    """``cut`` of a slim tensor, in indices of the dense tensor."""
    gone = removed.get((cut.name, cut.dim)) if cut.dim is not None else None
    if gone is None:
        return cut
    indices = cut.indices(size)
    dense = torch.ones(int(indices.max()) + 1 + len(gone), dtype=torch.bool)
    dense[gone] = False
    table = dense.nonzero().flatten()[indices]
    return replace(cut, table=tuple(map(tuple, table.tolist())))
