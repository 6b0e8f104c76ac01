"""Which slices of which tensors go together, recorded while labels flow through a forward pass.

Every index along every dimension of a parameter or buffer has a label (a positive int; 0 is none).
Tensors that are computed from them carry tracks: for one of their dimensions, the label of each index
along it. What an operation does with tracks is written down as relations between labels:

* ties: if one goes, the other goes (the bias of a row; both addends of a sum);
* consequences: if the first goes, the second goes, but not the other way round (the column of a weight that
  reads a channel; the rows of a head);
* pins: it can't go (it reaches an output, or an unknown operation).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Track(NamedTuple):
    """Labels along one dimension of a tensor.

    Attributes:
        dim: The dimension.
        ids: The label of each index along it; 0 is none.
    """

    dim: int
    ids: Ids


class Origin(NamedTuple):
    """The labels of one dimension of a parameter or buffer: ``start ... start + length - 1``."""

    start: int
    length: int
    name: str
    dim: int


class Labels:
    """Labels and the relations between them."""

    def __init__(self) -> None:
        self.count = 1  # 0 is no label
        self.origins: list[Origin] = []
        self.vectors: list[Ids] = []
        self.ties: list[tuple[Ids, Ids]] = []
        self.consequences: list[tuple[Ids, Ids]] = []
        self.pins: list[tuple[Ids, str]] = []
        self.marks: dict[str, list[Ids]] = {}
        self.norms: list[tuple[Ids, str, str]] = []
        self.rankings: list[tuple[Ids, int]] = []  # scores, and the fewest of them that are taken
        self._families: dict[bytes, int] = {}
        self._partitions: dict[bytes, Ids] = {}

    def new(self, length: int) -> Ids:
        """The next ``length`` labels."""
        self.count += length
        return np.arange(self.count - length, self.count, dtype=np.int64)

    def of_tensor(self, name: str, dim: int, length: int) -> Ids:
        """Labels for a dimension of a parameter or buffer."""
        ids = self.new(length)
        self.origins.append(Origin(int(ids[0]), length, name, dim))
        self.vectors.append(ids)
        return ids

    def tie(self, first: Ids, second: Ids) -> None:
        """If either of a pair goes, the other goes."""
        both = (first > 0) & (second > 0) & (first != second)
        if both.any():
            self.ties.append((first[both], second[both]))

    def collapse(self, ids: Ids) -> None:
        """What all of these labels are mixed into depends on each: they only go together."""
        known = np.unique(ids[ids > 0])
        self.tie(known[:-1], known[1:])

    def imply(self, first: Ids, second: Ids) -> None:
        """If the first of a pair goes, the second goes."""
        both = (first > 0) & (second > 0) & (first != second)
        if both.any():
            self.consequences.append((first[both], second[both]))

    def pin(self, ids: Ids, why: str) -> None:
        """These can't go."""
        self.pins.append((np.unique(ids[ids > 0]), why))

    def mark(self, what: str, ids: Ids) -> None:
        """Note something about labels: ``spent`` (can't go alone), ``read`` (a weight's columns that take
        them as input), ``attended``, ``added``."""
        self.marks.setdefault(what, []).append(ids[ids > 0])

    def family(self, classes: Ids, members: Ids) -> Ids | None:
        """Labels for sets of labels: one for all members of equal class.

        Args:
            classes: (n,) numbers of classes, at least 0.
            members: (n,) the labels in them; 0 is ignored.

        Returns:
            The label of each class, of shape (largest class + 1,); None where unequal sets overlap.
        """
        known = members > 0
        size = int(classes.max()) + 1
        pairs = np.unique(np.stack([classes[known], members[known]]), axis=1)
        starts = np.searchsorted(pairs[0], np.arange(size + 1))
        sets = [pairs[1, starts[i] : starts[i + 1]] for i in range(size)]
        distinct = {own.tobytes(): own for own in sets}
        if sum(map(len, distinct.values())) > len(np.unique(pairs[1])):
            return None
        labels = {key: self._label_of_set(own) for key, own in distinct.items()}
        result = np.array([labels[own.tobytes()] for own in sets])
        if any(len(own) > 1 for own in distinct.values()):
            self.vectors.append(result)
        return result

    def _label_of_set(self, members: Ids) -> int:
        """The label of a set of labels; 0 for none."""
        if len(members) < 2:
            return int(members[0]) if len(members) else 0
        key = members.tobytes()
        if key not in self._families:
            self._families[key] = int(self.new(1)[0])
            self.imply(np.full(len(members), self._families[key]), members)
            self.mark('spent', members)
        return self._families[key]

    def partition(self, ids: Ids) -> Ids:
        """Class of each index, counted by first occurrence."""
        key = ids.tobytes()
        if key not in self._partitions:
            _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
            rank = np.empty(len(first), np.int64)
            rank[np.argsort(first)] = np.arange(len(first))
            self._partitions[key] = rank[inverse]
        return self._partitions[key]

    def joined(self, vectors: Iterable[Ids]) -> list[Ids]:
        """Combine labels of one dimension of several tensors that an operation takes index by index.

        Equal partitions are tied; of a coarse and a fine one, the fine one is taken in the coarse one's
        classes; what crosses (the rows and columns of a grid) stays side by side.

        Args:
            vectors: Labels of equal length.

        Returns:
            Labels of the result: one vector, or several that cross.
        """
        result: list[Ids] = []
        for ids in vectors:
            if is_varied(ids):
                result = self._joined_to(result, ids)
        return result

    def _joined_to(self, result: list[Ids], ids: Ids) -> list[Ids]:
        """:meth:`joined` with one vector more."""
        rest, represented = [], False
        for other in result:
            order = 'equal' if np.array_equal(other, ids) else self.compare(other, ids)
            if order == 'equal':
                self.tie(other, ids)
            elif order == 'coarser':
                self.join_classes(other, ids)
            elif order == 'finer':
                self.join_classes(ids, other)
                continue
            represented = represented or order in ('equal', 'coarser')
            rest.append(other)
        return rest if represented else [*rest, ids]

    def compare(self, first: Ids, second: Ids) -> str:
        """Whether the first's classes are ``equal`` to, ``coarser`` or ``finer`` than the second's; they
        ``cross`` otherwise. Indices without a label on either side don't count."""
        both = (first > 0) & (second > 0)
        if not both.any():
            return 'cross'
        if not both.all():
            first, second = first[both], second[both]
        a, b = self.partition(first), self.partition(second)
        if np.array_equal(a, b):
            return 'equal'
        count_a, count_b = int(a.max()) + 1, int(b.max()) + 1
        pairs = len(np.unique(a * count_b + b))
        if pairs == count_b:
            return 'coarser'
        if pairs == count_a:
            return 'finer'
        return 'cross'

    def join_classes(self, coarse: Ids, fine: Ids) -> None:
        """Tie each class of the coarse labels to the set of fine labels in it."""
        both = (coarse > 0) & (fine > 0)
        classes = self.partition(coarse[both])
        family = self.family(classes, fine[both])
        if family is not None:
            self.tie(coarse[both], family[classes])

    def consume(self, ids: Ids, weight: Ids) -> None:
        """A weight's columns read the indices of an input."""
        self.mark('read', weight)
        order = self.compare(weight, ids)
        if order == 'coarser':  # the columns are sets of what flows in
            both = (ids > 0) & (weight > 0)
            classes = self.partition(weight[both])
            family = self.family(classes, ids[both])
            if family is not None:
                self.imply(family[classes], weight[both])
        elif order != 'cross':
            self.imply(ids, weight)


def is_varied(ids: Ids) -> bool:
    """Whether there is more than one label."""
    return len(ids) > 1 and bool((ids != ids[0]).any()) and bool((ids > 0).any())
