"""Unit groups: plain data that describes which tensor slices are removed together."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..common.model_argument import check_model
from ..common.precision import at_least_float32


@dataclass(frozen=True)
class Cut:
    """The slices of one tensor that belong to the units of a group.

    Unit ``u`` owns, in every section ``s``, the indices ``s + u * width ... s + (u + 1) * width - 1``
    of dimension ``dim``; or, where ``table`` is given, the indices in its row ``u``. With ``dim=None`` the
    whole tensor belongs to the only unit of the group.

    Attributes:
        name: Parameter or buffer, by its name in the model.
        dim: Dimension that is cut, or None.
        width: Consecutive indices per unit and section.
        sections: Offsets at which the sequence of units is repeated (``(0, C, 2 * C)`` for fused qkv).
        side: ``'in'`` for tensors that compute the unit (rows), ``'out'`` for tensors that take it as
            input (columns), ``'index'`` for a buffer of a converted module that holds the indices of kept
            units, ``'flag'`` for a buffer of a masked model: 1 for kept units, 0 for removed ones.
        table: Explicit indices, one row per unit, where they aren't consecutive.
        fill: Value of masked elements; not 0 where 0 still has an effect, as a logit before a softmax.
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
        """Number of indices of ``dim`` that one unit owns."""
        return len(self.table[0]) if self.table else self.width * len(self.sections)

    def length(self, size: int) -> int:
        """Smallest length of ``dim`` that ``size`` units fit in."""
        if self.table:
            return max(map(max, self.table)) + 1
        return max(self.sections) + size * self.width

    def indices(self, size: int) -> Tensor:
        """Indices of ``dim`` by unit: a LongTensor of shape (size, per_unit)."""
        if self.table:
            return torch.tensor(self.table)
        within = torch.tensor(self.sections)[:, None] + torch.arange(self.width)
        return torch.arange(size)[:, None] * self.width + within.reshape(1, -1)


@dataclass(frozen=True)
class Attr:
    """An integer of a module (``num_heads``) that slimming lowers by ``per_unit`` for each removed unit.

    Attributes:
        module: The module's name.
        name: The attribute; ``config.num_heads`` or ``sizes.0`` for an entry of what the module holds.
        per_unit: What a unit contributes.
        offset: What is left of it without units: the share of other groups.
    """

    module: str
    name: str
    per_unit: int = 1
    offset: int = 0

    def dense(self, size: int) -> int:
        """The integer in the dense model, for a group of ``size`` units."""
        return self.offset + size * self.per_unit


@dataclass(frozen=True)
class UnitGroup:
    """All units of one kind in one module.

    Attributes:
        name: Unique name: the module that contains the units.
        kind: Kind of unit, for reports: ``attention``, ``mlp``, ``channel``, ``layer`` ...
        size: Number of units.
        cuts: The tensors that shrink when a unit is removed.
        owner: The module whose forward pass uses the units. Latency budgets measure it, and its
            exclusive FLOPs (of parameter-free operations) are divided among the units.
        attrs: Integer attributes that depend on the number of units.
        converts: ``(module, converter)`` pairs: modules to replace before cutting
            (see :mod:`projects.prune_plugin.structure.modules`).
        least: Smallest number of units with which the modules can run; 0 if all may be removed.
        layer_idx: Index of the block, counted over the whole model.
        repeated: Regular expressions for modules that are executed once per unit (a query's decoder):
            their FLOPs shrink with the number of units, their weights don't.
        emptied: ``(module, converter)`` pairs: modules to replace after cutting if no unit is kept.
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

    @property
    def is_whole(self) -> bool:
        """Whether its only unit is a module as a whole: a layer, or a layer's attention or MLP."""
        return any(cut.dim is None for cut in self.cuts)

    @property
    def module(self) -> str:
        """Of a whole module its name."""
        return self.converts[0][0] if self.converts else self.owner


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; tied ones are listed under each of their names.

    Raises:
        UserError: it is no model, or has parameters without a shape.
    """
    check_model(model)
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    return tensors


def owners_along(cut: Cut, size: int, length: int) -> Tensor:
    """For each of ``length`` indices of a cut's dimension the unit that owns it, or -1 for none."""
    owners = torch.full((length,), -1)
    owners[cut.indices(size).flatten()] = torch.arange(size).repeat_interleave(cut.per_unit)
    return owners


def form_grid(first: Tensor, second: Tensor) -> bool:
    """Whether two groups partition a dimension like the rows and columns of a grid (heads and points).

    Each group then owns every index, and every pair of units shares the same number of indices.

    Args:
        first: :func:`owners_along` the dimension for the first group.
        second: The same for the second group.
    """
    if bool((first < 0).any()) or bool((second < 0).any()):
        return False
    columns = int(second.max()) + 1
    shared = torch.bincount(first * columns + second, minlength=(int(first.max()) + 1) * columns)
    return bool((shared == shared[0]).all())


def weight_cuts(group: UnitGroup, tensors: dict[str, Tensor], parts: str) -> Iterator[Cut]:
    """The cuts of weights (two or more dimensions) on side ``parts``: ``'in'``, ``'out'``, ``'both'``."""
    for cut in group.cuts:
        if parts in ('both', cut.side) and cut.name in tensors and tensors[cut.name].dim() > 1:
            yield cut


def sum_per_unit(elements: Tensor, cut: Cut, size: int) -> Tensor:
    """Sum values of single elements over each unit, in float64.

    Args:
        elements: Values, of the shape of the tensor that ``cut`` names.
        cut: The cut.
        size: Number of units in the group.

    Returns:
        Tensor of shape (size,).
    """
    if cut.dim is None:
        return elements.sum(dtype=torch.float64).reshape(1)
    others = [d for d in range(elements.dim()) if d != cut.dim]
    elements = at_least_float32(elements)
    along = elements.sum(others) if others else elements
    along = along.double()
    return along[cut.indices(size).to(along.device)].sum(1)
