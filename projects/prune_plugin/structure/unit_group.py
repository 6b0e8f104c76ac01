"""What a unit group is: plain data that says which slices of which tensors go together."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cut:
    """One tensor's share of a unit group.

    Unit ``u`` owns, in every section ``s``, the indices ``s + u * width ... s + (u + 1) * width - 1``
    of dimension ``dim``; or, where ``table`` is given, its row ``u``. With ``dim=None`` the whole
    tensor belongs to the (only) unit of the group.

    Attributes:
        name: Parameter or buffer, by its name in the model.
        dim: Dimension that is cut, or None.
        width: Consecutive indices per unit and section.
        sections: Offsets at which the units start over (``(0, C, 2 * C)`` for a fused q, k, v).
        side: ``'in'`` for what computes the unit, ``'out'`` for what reads it, ``'index'`` for a
            buffer that a converter adds to remember which units are left, ``'flag'`` for a buffer
            that only a masked model has: 1 for units that are left, 0 for others.
        table: Explicit indices, one row per unit, where they aren't consecutive.
        fill: What masking sets the unit's elements to; not 0 where 0 still counts, as in a softmax.
    """

    name: str
    dim: int | None
    width: int = 1
    sections: tuple[int, ...] = (0,)
    side: str = 'in'
    table: tuple[tuple[int, ...], ...] | None = None
    fill: float = 0.0

    @property
    def per_unit(self) -> int:
        """Indices of ``dim`` that one unit owns."""
        return len(self.table[0]) if self.table else self.width * len(self.sections)

    def length(self, size: int) -> int:
        """The length of ``dim`` that ``size`` units need at least."""
        if self.table:
            return max(map(max, self.table)) + 1
        return max(self.sections) + size * self.width

    def indices(self, size: int) -> Tensor:
        """Indices owned by each unit: a LongTensor of shape (size, per_unit)."""
        if self.table:
            return torch.tensor(self.table)
        within = torch.tensor(self.sections)[:, None] + torch.arange(self.width)
        return torch.arange(size)[:, None] * self.width + within.reshape(1, -1)


@dataclass(frozen=True)
class Attr:
    """An integer attribute that counts units: it becomes ``kept * per_unit`` (``num_heads``)."""

    module: str
    name: str
    per_unit: int = 1


@dataclass(frozen=True)
class UnitGroup:
    """All the units of one kind in one module.

    Attributes:
        name: Unique name; the module that holds the units.
        kind: What a unit is, in reports: ``attention``, ``mlp``, ``channel``, ``layer`` ...
        size: Number of units.
        cuts: The tensors that shrink when a unit goes.
        owner: The module whose forward pass uses the units: it is timed for latency budgets, and
            the FLOPs of its own (parameter-free) operations are shared out among the units.
        attrs: Integer attributes that follow the number of units.
        converts: ``(module, converter)`` pairs: modules to replace before cutting
            (see :mod:`projects.prune_plugin.structure.modules`).
        least: Fewest units with which the group's modules can run; 0: they can lose all.
        layer_idx: Index of the block, counted through the model.
        repeated: Regular expressions of the modules that run once per unit (a query's decoder): their
            FLOPs shrink with the units, although their weights don't.
        emptied: ``(module, converter)`` pairs: modules to replace after cutting when no unit is left.
    """

    name: str
    kind: str
    size: int
    cuts: tuple[Cut, ...]
    owner: str = ''
    attrs: tuple[Attr, ...] = ()
    converts: tuple[tuple[str, str], ...] = ()
    least: int = 0
    layer_idx: int = field(default=0, compare=False)
    repeated: tuple[str, ...] = ()
    emptied: tuple[tuple[str, str], ...] = ()


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every name they have (tied ones under each)."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    return tensors


def owners_along(cut: Cut, size: int, length: int) -> Tensor:
    """Which unit owns each of ``length`` indices of a cut's dimension; -1 where none does."""
    owners = torch.full((length,), -1)
    owners[cut.indices(size).flatten()] = torch.arange(size).repeat_interleave(cut.per_unit)
    return owners


def crossing(one: Tensor, other: Tensor) -> bool:
    """Whether two groups cut a dimension like rows and columns of a table (heads and points).

    Each then owns every index, and any two units share equally many.

    Args:
        one: :func:`owners_along` the dimension for the first group.
        other: For the second.
    """
    if bool((one < 0).any()) or bool((other < 0).any()):
        return False
    columns = int(other.max()) + 1
    shared = torch.bincount(one * columns + other, minlength=(int(one.max()) + 1) * columns)
    return bool((shared == shared[0]).all())


def weight_cuts(group: UnitGroup, tensors: dict[str, Tensor], parts: str) -> Iterator[Cut]:
    """The cuts through weights (two or more dimensions), of ``parts`` ``'in'``, ``'out'``, ``'both'``."""
    for cut in group.cuts:
        if parts in ('both', cut.side) and cut.name in tensors and tensors[cut.name].dim() > 1:
            yield cut


def sum_per_unit(elements: Tensor, cut: Cut, size: int) -> Tensor:
    """Sum a tensor of per-element values into one value per unit, in float64.

    Args:
        elements: Values, shaped as the tensor that ``cut`` names.
        cut: The cut.
        size: Units in the group.

    Returns:
        Tensor of shape (size,).
    """
    if cut.dim is None:
        return elements.sum(dtype=torch.float64).reshape(1)
    others = [d for d in range(elements.dim()) if d != cut.dim]
    along = elements.sum(others) if others else elements
    along = along.double()
    return along[cut.indices(size).to(along.device)].sum(1)
