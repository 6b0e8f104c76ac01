"""From labels and their relations to groups of units."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from ..unit_group import Cut
from .labels import Ids, Labels


@dataclass
class Candidate:
    """Slices that seem to go together, unit by unit.

    Attributes:
        size: Number of units.
        cuts: What each unit owns.
        attended: Whether the units stay apart in a softmax, or in a product of activations: heads.
        added: Whether several layers write them into a sum: a width that layers share.
        norms: ``(module, converter)`` of norms over the units.
    """

    size: int
    cuts: tuple[Cut, ...]
    attended: bool = False
    added: bool = False
    norms: tuple[tuple[str, str], ...] = field(default=())


class Relations:
    """The relations between labels, with tied ones as one."""

    def __init__(self, labels: Labels):
        self.labels = labels
        first, second = pairs(labels.ties)
        self.tied = connected(labels.count, first, second)
        self.count = int(self.tied.max()) + 1
        before, after = pairs(labels.consequences)
        edges = np.unique(np.stack([self.tied[before], self.tied[after]]), axis=1)
        edges = edges[:, edges[0] != edges[1]]
        self.targets = edges[1]
        self.starts = np.searchsorted(edges[0], np.arange(self.count + 1))
        self.pinned: dict[int, str] = {}
        for ids, why in labels.pins:
            for tied in np.unique(self.tied[ids]):
                self.pinned.setdefault(int(tied), why)
        self.marked = {
            what: self.set_of(np.concatenate(ids)) for what, ids in labels.marks.items() if ids
        }
        order = np.argsort(self.tied, kind='stable')
        self.members = order
        self.member_starts = np.searchsorted(self.tied[order], np.arange(self.count + 1))
        self.origin_starts = np.array([o.start for o in labels.origins])
        self.origin_lengths = np.array([o.length for o in labels.origins])
        self.read_atoms = self.mask_of('read')
        self.directions = self.mask_of('direction')
        self.norms = [(self.set_of(ids), name, kind) for ids, name, kind in labels.norms]

    def mask_of(self, what: str) -> np.ndarray:
        """Mask of the labels with a mark."""
        mask = np.zeros(self.labels.count, bool)
        for ids in self.labels.marks.get(what, ()):
            mask[ids] = True
        return mask

    def set_of(self, ids: Ids) -> np.ndarray:
        """Mask of the tied sets that contain any of the labels."""
        mask = np.zeros(self.count, bool)
        mask[self.tied[ids]] = True
        return mask

    def is_marked(self, what: str, nodes: Ids) -> bool:
        """Whether any of these has the mark."""
        mask = self.marked.get(what)
        return mask is not None and bool(mask[nodes].any())

    def reach(self, drivers: Ids) -> tuple[Ids, Ids] | None:
        """What goes when each of the drivers goes.

        Returns:
            Nodes, and the index of the driver of each; None if two drivers reach the same node.
        """
        owner = np.full(self.count, -1)
        owner[drivers] = np.arange(len(drivers))
        frontier = drivers
        reached = [drivers]
        while len(frontier):
            lengths = self.starts[frontier + 1] - self.starts[frontier]
            offsets = np.repeat(self.starts[frontier] - np.cumsum(lengths) + lengths, lengths)
            targets = self.targets[offsets + np.arange(len(offsets))]
            owners = np.repeat(owner[frontier], lengths)
            old = owner[targets] >= 0
            if (owner[targets[old]] != owners[old]).any():
                return None
            targets, owners = targets[~old], owners[~old]
            owner[targets] = owners
            if (owner[targets] != owners).any():
                return None
            frontier = np.unique(targets)
            reached.append(frontier)
        nodes = np.concatenate(reached)
        return nodes, owner[nodes]

    def atoms(self, nodes: Ids, owners: Ids) -> tuple[Ids, Ids]:
        """The labels in tied sets, with the owner of each."""
        lengths = self.member_starts[nodes + 1] - self.member_starts[nodes]
        offsets = np.repeat(self.member_starts[nodes] - np.cumsum(lengths) + lengths, lengths)
        return self.members[offsets + np.arange(len(offsets))], np.repeat(owners, lengths)


def connected(count: int, first: Ids, second: Ids) -> Ids:
    """Number of the connected component of each of ``count`` nodes, given pairs of neighbours."""
    least = np.arange(count)
    while len(first):
        a, b = least[first], least[second]
        apart = a != b
        if not apart.any():
            break
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        np.minimum.at(least, np.maximum(a, b), np.minimum(a, b))
        while (least != least[least]).any():
            least = least[least]
    return np.unique(least, return_inverse=True)[1]


def pairs(edges: list[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
    """All pairs in one."""
    if not edges:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([a for a, _ in edges]), np.concatenate([b for _, b in edges])


def candidates(labels: Labels) -> tuple[list[Candidate], dict[tuple[str, int], str]]:
    """Groups of units, the likeliest first; they may overlap.

    Returns:
        The candidates, and why the slices of a tensor along a dimension are in none.
    """
    relations = Relations(labels)
    found, seen = [], set()
    refused: dict[tuple[str, int], str] = {}
    for vector in labels.vectors:
        nodes = np.unique(relations.tied[vector[vector > 0]])
        key = nodes.tobytes()
        if len(nodes) < 2 or key in seen or relations.is_marked('spent', nodes):
            continue
        seen.add(key)
        candidate = of_drivers(relations, in_order(relations, vector))
        if isinstance(candidate, Candidate):
            found.append(candidate)
        elif candidate:
            origin = labels.origins[
                int(np.searchsorted(relations.origin_starts, vector[vector > 0][0], 'right')) - 1
            ]
            refused[origin.name, origin.dim] = candidate
    found.sort(key=lambda c: (not c.attended, -c.size, sum(cut.per_unit > 1 for cut in c.cuts)))
    return found, refused


def in_order(relations: Relations, vector: Ids) -> Ids:
    """The tied sets of a vector's labels, in order of first occurrence."""
    nodes = relations.tied[vector[vector > 0]]
    _, first = np.unique(nodes, return_index=True)
    return nodes[np.sort(first)]


def of_drivers(relations: Relations, drivers: Ids) -> Candidate | str:
    """The candidate whose units are what goes with each driver, or why there is none.

    Drivers that are pinned, or that own something else than most, aren't units: keys and values that all
    heads share lie in the same weight as the queries.
    """
    reached = relations.reach(drivers)
    if reached is None:
        return 'its slices share others'
    nodes, owners = reached
    pins = {int(o): relations.pinned[int(n)] for n, o in zip(nodes, owners, strict=True)
            if int(n) in relations.pinned}  # fmt: skip
    if len(drivers) - len(pins) < 2:
        return next(iter(pins.values()), '')
    owned = indices_by_tensor(relations, *relations.atoms(nodes, owners), len(drivers))
    unlike: dict[tuple, list[int]] = {}
    for unit in range(len(drivers)):
        if unit not in pins:
            signature = tuple((key, len(rows[unit])) for key, rows in owned.items() if rows[unit])
            unlike.setdefault(signature, []).append(unit)
    units = max(unlike.values(), key=len)
    cuts = tuple(
        replace(compact(name, dim, np.array([rows[u] for u in units]), side), fill=fill)
        for (name, dim, side, fill), rows in owned.items()
        if rows[units[0]]
    )
    if {cut.side for cut in cuts} != {'in', 'out'} or len(units) < 2:
        return ''
    alive = np.isin(owners, units)
    nodes = nodes[alive]
    return Candidate(
        len(units),
        cuts,
        relations.is_marked('attended', nodes),
        relations.is_marked('added', nodes),
        tuple(dict.fromkeys((n, k) for mask, n, k in relations.norms if mask[nodes].any())),
    )


def indices_by_tensor(
    relations: Relations, atoms: Ids, units: Ids, size: int
) -> dict[tuple[str, int, str, float], list[list[int]]]:
    """For each tensor and dimension the indices of each unit, sorted.

    Args:
        relations: The relations.
        atoms: Labels; those of families are left out.
        units: The unit that owns each of them.
        size: Number of units.

    Returns:
        ``{(name, dimension, side, value of masked elements): [indices of unit 0, ...]}``.
    """
    labels = relations.labels
    place = np.searchsorted(relations.origin_starts, atoms, 'right') - 1
    real = place >= 0
    starts = relations.origin_starts[np.maximum(place, 0)]
    lengths = relations.origin_lengths[np.maximum(place, 0)]
    real &= atoms - starts < lengths
    atoms, units, place = atoms[real], units[real], place[real]
    owned = {}
    for number in np.unique(place):
        origin = labels.origins[number]
        own = place == number
        index, unit = atoms[own] - origin.start, units[own]
        order = np.lexsort((index, unit))
        index, unit = index[order], unit[order]
        side = 'out' if relations.read_atoms[origin.start + index[0]] else 'in'
        parts = np.split(index, np.searchsorted(unit, np.arange(1, size)))
        fill = float(relations.directions[origin.start + index[0]])
        owned[origin.name, origin.dim, side, fill] = [part.tolist() for part in parts]
    return owned


def compact(name: str, dim: int, table: np.ndarray, side: str) -> Cut:
    """A cut by width and sections, as few as possible, where the table follows such a pattern."""
    size, count = table.shape
    for width in reversed(divisors(count)):
        first = table[0].reshape(-1, width)
        shifted = table[0] + np.arange(size)[:, None] * width
        if (np.diff(first, axis=1) == 1).all() and (table == shifted).all():
            return Cut(name, dim, width, tuple(int(s) for s in first[:, 0]), side)
    return Cut(name, dim, side=side, table=tuple(tuple(int(i) for i in row) for row in table))


def divisors(number: int) -> list[int]:
    """Divisors in ascending order."""
    return [d for d in range(1, number + 1) if number % d == 0]


def disjoint(found: Iterable[Candidate]) -> list[Candidate]:
    """Of candidates that own the same slices, the first."""
    taken: dict[tuple[str, int | None], set[int]] = {}
    chosen = []
    for candidate in found:
        own = {
            (c.name, c.dim): set(c.indices(candidate.size).flatten().tolist())
            for c in candidate.cuts
        }
        if any(taken.get(key, set()) & indices for key, indices in own.items()):
            continue
        for key, indices in own.items():
            taken.setdefault(key, set()).update(indices)
        chosen.append(candidate)
    return chosen
