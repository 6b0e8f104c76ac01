"""What a model costs when each group keeps a given number of units: pure arithmetic on shapes."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from .units.base import UnitGroup, named_tensors


class Cost(Protocol):
    """Something a budget limits. Counts are a LongTensor with the kept units of each group."""

    def total(self, counts: Tensor) -> float:
        """The cost of the whole model."""

    def marginal(self, counts: Tensor) -> Tensor:
        """What goes when one more unit of each group goes: float64 of shape (groups,)."""


class ProductCost:
    """A sum of products of widths: parameters and FLOPs are of this form.

    Term ``t`` costs ``multiplier[t] * prod_k (width[t, k] - sum_g share[t, k, g] * removed[g])``: a
    weight costs its rows times its columns, and a group may cut either.

    Args:
        multipliers: float64 (terms,).
        widths: Dense widths, float64 (terms, dims).
        shares: What one unit of a group takes from a width, float64 (terms, dims, groups).
        sizes: Dense number of units, LongTensor (groups,).
        constant: Cost of everything that no group cuts.
    """

    def __init__(
        self, multipliers: Tensor, widths: Tensor, shares: Tensor, sizes: Tensor, constant: float
    ):
        self.multipliers, self.widths, self.shares = multipliers, widths, shares
        self.sizes, self.constant = sizes, constant

    def _left(self, counts: Tensor) -> Tensor:
        return self.widths - self.shares @ (self.sizes - counts).double()

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return float(self.constant + (self.multipliers * self._left(counts).prod(1)).sum())

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`; exact where a group cuts only one dimension of each tensor."""
        left = self._left(counts)
        result = torch.zeros(len(self.sizes), dtype=torch.float64)
        for dim in range(left.shape[1]):
            others = left[:, [d for d in range(left.shape[1]) if d != dim]].prod(1)
            result += (self.multipliers * others) @ self.shares[:, dim]
        return result


def product_cost(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    uses: dict[int, float] | None = None,
    own: dict[str, float] | None = None,
) -> ProductCost:
    """Build the cost of ``model`` as a function of the units kept.

    Args:
        model: The model; meta tensors will do.
        groups: Its unit groups.
        uses: Cost of each element of a parameter, by ``id``; 1 for all parameters if None.
        own: Cost of modules' own operations, by module name: shared out among the units of the
            groups that the module owns, constant elsewhere.

    Returns:
        The cost.
    """
    tensors = named_tensors(model)
    parameters = {id(p): p for p in model.parameters()}
    cuts: dict[int, list[tuple[int, int | None, int]]] = {}
    for g, group in enumerate(groups):
        for cut in group.cuts:
            tensor = tensors.get(cut.name)
            if id(tensor) in parameters:
                cuts.setdefault(id(tensor), []).append((g, cut.dim, cut.per_unit))
    constant = 0.0
    terms: list[tuple[float, list[int], list[tuple[int, int, int]]]] = []
    for key, parameter in parameters.items():
        multiplier = 1.0 if uses is None else uses.get(key, 0.0)
        if key not in cuts:
            constant += multiplier * parameter.numel()
        elif multiplier:
            shape = list(parameter.shape)
            where = []
            for g, dim, share in cuts[key]:
                if dim is None:
                    shape.append(1)
                where.append((g, len(shape) - 1 if dim is None else dim, share))
            terms.append((multiplier, shape, where))
    layers = [(g, group.name) for g, group in enumerate(groups) if group.kind == 'layer']
    for name, cost in (own or {}).items():
        owners = [
            g for g, group in enumerate(groups) if group.owner == name and group.kind != 'layer'
        ]
        shape, where = [groups[g].size for g in owners], [(g, i, 1) for i, g in enumerate(owners)]
        for g, layer in layers:
            if name == layer or name.startswith(f'{layer}.'):
                where.append((g, len(shape), 1))
                shape.append(1)
        dense = 1
        for width in shape:
            dense *= width
        if where:
            terms.append((cost / dense, shape, where))
        else:
            constant += cost
    dims = max((len(shape) for _, shape, _ in terms), default=1)
    multipliers = torch.tensor([m for m, _, _ in terms], dtype=torch.float64)
    widths = torch.ones(len(terms), dims, dtype=torch.float64)
    shares = torch.zeros(len(terms), dims, len(groups), dtype=torch.float64)
    for t, (_, shape, where) in enumerate(terms):
        widths[t, : len(shape)] = torch.tensor(shape, dtype=torch.float64)
        for g, dim, share in where:
            shares[t, dim, g] += share
    sizes = torch.tensor([group.size for group in groups])
    return ProductCost(multipliers, widths, shares, sizes, constant)


class UnitCost:
    """One for every unit: the budget counts units, whatever they hold."""

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return float(counts.sum())

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`."""
        return torch.ones(len(counts), dtype=torch.float64)


class TableCost:
    """Measured costs of each group at a few widths, interpolated between them.

    Args:
        base: Cost of the dense model.
        tables: For each group ``(counts, costs)``, ascending, ending at the dense count; the model
            is taken to cost ``base - sum_g (costs_g[dense] - costs_g[kept])``.
    """

    def __init__(self, base: float, tables: Sequence[tuple[Tensor, Tensor]]):
        self.base, self.tables = base, list(tables)

    def _saved(self, group: int, kept: float) -> float:
        counts, costs = self.tables[group]
        right = int(torch.searchsorted(counts, torch.tensor(float(kept))).clamp(1, len(counts) - 1))
        span = counts[right] - counts[right - 1]
        share = (kept - counts[right - 1]) / span
        cost = costs[right - 1] + share * (costs[right] - costs[right - 1])
        return float(costs[-1] - cost)

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return self.base - sum(self._saved(g, int(kept)) for g, kept in enumerate(counts))

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`: the mean saving per unit down to the smallest width of the table."""
        slopes = [
            float((costs[-1] - costs[0]) / (widths[-1] - widths[0]))
            for widths, costs in self.tables
        ]
        return torch.tensor(slopes, dtype=torch.float64).clamp_min(1e-12)
