"""The prune state: which units of the dense model are kept, serialisable as plain data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..common.errors import UserError, first_line, format_value
from .modules import CONVERTERS, converter_of
from .unit_group import Attr, Cut, UnitGroup

VERSION = 1
#: Most units of a group: more is no width of a layer, but a damaged file.
MOST_UNITS = 2**24


@dataclass
class PruneState:
    """Kept units of each group, by indices of the dense model.

    Attributes:
        groups: Unit groups of the dense model, by name.
        kept: For each group a sorted LongTensor of the indices of kept units.
        asked: The requested budget (``{'budget': 'params', 'ratio': 0.3}``); ratio = fraction removed.
        achieved: Fractions actually removed, by quantity.
    """

    groups: dict[str, UnitGroup]
    kept: dict[str, Tensor]
    asked: dict[str, Any] = field(default_factory=dict)
    achieved: dict[str, Any] = field(default_factory=dict)

    @property
    def reduced(self) -> list[UnitGroup]:
        """Groups of which at least one unit is removed."""
        return [g for n, g in self.groups.items() if len(self.kept[n]) < g.size]

    @property
    def removed_layers(self) -> list[str]:
        """Names of the layers, attentions and MLPs that are removed as a whole."""
        return [g.owner for n, g in self.groups.items() if g.is_whole and not len(self.kept[n])]

    def has_units_of(self, group: UnitGroup) -> bool:
        """Whether a group of the slim model has the units that this state kept of its name.

        A module may have other units once it is slim: with one key/value head, its query heads.
        """
        own = self.groups.get(group.name)
        if own is None or group.size != len(self.kept[group.name]):
            return False

        def places(group: UnitGroup) -> set[tuple[str, int | None]]:
            return {(c.name, c.dim) for c in group.cuts if c.side in ('in', 'out')}

        return places(group) == places(own)

    def removed(self, name: str) -> Tensor:
        """Sorted indices of the removed units of group ``name``."""
        is_removed = torch.ones(self.groups[name].size, dtype=torch.bool)
        is_removed[self.kept[name]] = False
        return is_removed.nonzero().flatten()

    def digest(self) -> str:
        """SHA-256 of group names, sizes and kept indices, to check that all ranks hold the same state."""
        sha = hashlib.sha256()
        for name in sorted(self.kept):
            sha.update(f'{name}:{self.groups[name].size}:'.encode())
            sha.update(self.kept[name].numpy().tobytes())
        return sha.hexdigest()

    def removed_indices(self) -> dict[tuple[str, int], Tensor]:
        """Removed indices by (tensor name, dimension): sorted, unique, in the dense tensor."""
        removed: dict[tuple[str, int], list[Tensor]] = {}
        for group in self.reduced:
            units = self.removed(group.name)
            for cut in group.cuts:
                if cut.dim is not None:
                    rows = cut.indices(group.size)[units].flatten()
                    removed.setdefault((cut.name, cut.dim), []).append(rows)
        return {key: torch.cat(rows).unique() for key, rows in removed.items()}

    def to_dict(self) -> dict:
        """The state as plain data: dicts, lists, strings and numbers only."""
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
                attrs=[attr_to_list(a) for a in group.attrs],
                converts=[list(pair) for pair in group.converts],
                repeated=list(group.repeated),
                emptied=[list(pair) for pair in group.emptied],
            )
        return dict(version=VERSION, asked=self.asked, achieved=self.achieved, groups=groups)

    @classmethod
    def from_dict(cls, data: Mapping) -> 'PruneState':
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: the data isn't a valid prune state of this version; the message names the entry.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get('groups'), Mapping):
            raise UserError("prune_state is not a prune state: it needs 'version' and 'groups'")
        version = data.get('version')
        if type(version) is not int or version != VERSION:
            raise UserError(f'prune_state.version is {format_value(version)}; valid is {VERSION}')
        ratios = {key: data.get(key, {}) for key in ('asked', 'achieved')}
        for key, value in ratios.items():
            if not isinstance(value, Mapping):
                raise UserError(f'prune_state.{key} is {format_value(value)}; it must be a dict')
        state = cls({}, {}, **{key: dict(value) for key, value in ratios.items()})
        for name, entry in data['groups'].items():
            try:
                state.groups[name] = group_from_dict(name, entry)
                state.kept[name] = kept_from_list(entry['kept'], entry['size'])
            except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(
                    f'prune_state.groups[{name!r}] is malformed: {first_line(error)}'
                ) from error
        return state


def attr_to_list(attr: Attr) -> list:
    """Convert an attribute to plain data; an offset of 0 is left out, as before there was any."""
    offset = [attr.offset] if attr.offset else []
    return [attr.module, attr.name, attr.per_unit, *offset]


def cut_to_dict(cut: Cut) -> dict:
    """Convert a cut to plain data."""
    return dict(
        name=cut.name,
        dim=cut.dim,
        width=cut.width,
        sections=list(cut.sections),
        side=cut.side,
        table=None if cut.table is None else [list(row) for row in cut.table],
        fill=cut.fill,
    )


def attr_from_list(values: list) -> Attr:
    """The inverse of :func:`attr_to_list`; every value is checked."""
    module, name, *counts = values
    if len(counts) not in (1, 2):
        raise ValueError(f'{format_value(values)} is not [module, attribute, number per unit]')
    return Attr(as_name(module), as_name(name), *map(as_natural, counts))


def group_from_dict(name: str, entry: Mapping) -> UnitGroup:
    """Build a unit group from plain data; every value is checked.

    Raises:
        ValueError: a value is of the wrong type or out of range (LookupError or TypeError if missing).
    """
    as_name(name)
    size = as_natural(entry['size'])
    if size > MOST_UNITS:
        raise ValueError(f'its size is {size}; at most {MOST_UNITS} are possible')
    cuts = tuple(
        Cut(
            as_name(cut['name']),
            None if cut['dim'] is None else as_natural(cut['dim']),
            as_natural(cut['width']),
            tuple(as_natural(s) for s in cut['sections']),
            as_name(cut['side']),
            None
            if cut['table'] is None
            else tuple(tuple(map(as_natural, r)) for r in cut['table']),
            float(cut.get('fill', 0.0)),
        )
        for cut in entry['cuts']
    )
    if not cuts:
        raise ValueError('it has no cuts')
    for cut in cuts:
        check_cut(cut, size)
    converts, emptied = (
        tuple((as_name(module), as_name(converter)) for module, converter in entry.get(key, ()))
        for key in ('converts', 'emptied')
    )
    for _, converter in (*converts, *emptied):
        if converter_of(converter) is None:
            raise ValueError(f'no converter {converter!r}; valid are {", ".join(CONVERTERS)}')
    attrs = tuple(attr_from_list(values) for values in entry['attrs'])
    return UnitGroup(
        name, as_name(entry['kind']), size, cuts, as_name(entry['owner']), attrs, converts,
        as_natural(entry['least']), as_natural(entry['layer_idx']),
        tuple(as_name(pattern) for pattern in entry.get('repeated', ())), emptied,
    )  # fmt: skip


def check_cut(cut: Cut, size: int) -> None:
    """Raise :class:`ValueError` unless ``cut`` assigns indices to each of ``size`` units."""
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


def as_name(value: Any) -> str:
    """Return ``value``; raise :class:`ValueError` if it isn't a string."""
    if not isinstance(value, str):
        raise ValueError(f'{format_value(value)} is not a name')
    return value


def as_natural(value: Any) -> int:
    """Return ``value``; raise :class:`ValueError` if it isn't an int >= 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'{format_value(value)} is not a whole number >= 0')
    return value


def kept_from_list(kept: list[int], size: int) -> Tensor:
    """Kept indices as a LongTensor; raise :class:`ValueError` unless ascending and below ``size``."""
    tensor = torch.tensor([as_natural(k) for k in kept], dtype=torch.long)
    if len(tensor) and (int(tensor[-1]) >= size or bool((tensor.diff() <= 0).any())):
        raise ValueError(f'kept indices must ascend and stay below {size}')
    return tensor


def compose(first: PruneState | None, second: PruneState) -> PruneState:
    """Combine two successive prunings into one state relative to the dense model.

    Args:
        first: State of the first pruning, relative to the dense model; None if there was none.
        second: State of the second pruning, relative to the slim model that ``first`` describes.

    Returns:
        One state relative to the dense model.
    """
    if first is None:
        return second
    removed = first.removed_indices()
    lowered: dict[tuple[str, str], int] = {}
    for group in first.reduced:
        for a in group.attrs:
            count = len(first.removed(group.name)) * a.per_unit
            lowered[a.module, a.name] = lowered.get((a.module, a.name), 0) + count
    groups, kept = dict(first.groups), dict(first.kept)
    for name, group in second.groups.items():
        if first.has_units_of(group):
            kept[name] = first.kept[name][second.kept[name]]
        else:
            number = 2
            while name in groups:  # other units of the same module
                name, number = f'{group.name}#{number}', number + 1
            cuts = tuple(to_dense_indices(cut, group.size, removed) for cut in group.cuts)
            attrs = tuple(
                replace(a, offset=a.offset + lowered.get((a.module, a.name), 0))
                for a in group.attrs
            )
            groups[name] = replace(group, name=name, cuts=cuts, attrs=attrs)
            kept[name] = second.kept[group.name]
    return PruneState(groups, kept, second.asked, second.achieved)


def to_dense_indices(cut: Cut, size: int, removed: dict[tuple[str, int], Tensor]) -> Cut:
    """Translate ``cut`` from indices of a slim tensor to indices of the dense tensor.

    Args:
        cut: The cut.
        size: Units of its group in the slim model.
        removed: :meth:`PruneState.removed_indices` of the state that made the model slim.
    """
    missing = removed.get((cut.name, cut.dim)) if cut.dim is not None else None
    if missing is None:
        return cut
    indices = cut.indices(size)
    length = max(int(indices.max()) + 1 + len(missing), int(missing.max()) + 1)
    is_kept = torch.ones(length, dtype=torch.bool)
    is_kept[missing] = False
    table = is_kept.nonzero().flatten()[indices]
    return replace(cut, table=tuple(map(tuple, table.tolist())))
