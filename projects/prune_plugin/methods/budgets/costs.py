"""Costs of a model as functions of the units that each group keeps: arithmetic on shapes or tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor, nn

from ...common.patterns import matches_any
from ...structure.unit_group import Cut, UnitGroup, named_tensors, owners_along
from ..constraint import Cost


class ProductCost:
    """A cost that is a sum of products of widths, as parameters and FLOPs are.

    Term ``t`` costs ``multiplier[t] * prod_k (width[t, k] - sum_g share[t, k, g] * removed[g])``: a
    weight costs its rows times its columns, and a group may cut either.

    Args:
        multipliers: float64 (terms,).
        widths: Dense widths, float64 (terms, dims).
        shares: By how much one removed unit of a group reduces a width, float64 (terms, dims, groups).
        sizes: Dense number of units, LongTensor (groups,).
        constant: Cost of everything that no group cuts.
    """

    def __init__(
        self, multipliers: Tensor, widths: Tensor, shares: Tensor, sizes: Tensor, constant: float
    ):
        self.multipliers, self.widths, self.shares = multipliers, widths, shares
        self.sizes, self.constant = sizes, constant

    def _remaining_widths(self, counts: Tensor) -> Tensor:
        return self.widths - self.shares @ (self.sizes - counts).double()

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return float(
            self.constant + (self.multipliers * self._remaining_widths(counts).prod(1)).sum()
        )

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`; exact if a group cuts only one dimension of each tensor."""
        widths = self._remaining_widths(counts)
        result = torch.zeros(len(self.sizes), dtype=torch.float64)
        for dim in range(widths.shape[1]):
            others = widths[:, [d for d in range(widths.shape[1]) if d != dim]].prod(1)
            result += (self.multipliers * others) @ self.shares[:, dim]
        return result


@dataclass
class Term:
    """One product of widths, each of which shrinks with the removed units of some groups.

    Attributes:
        multiplier: Cost of one element.
        widths: The dense widths.
        shares: ``(group, index of the width, by how much one removed unit reduces it)``.
    """

    multiplier: float
    widths: list[int]
    shares: list[tuple[int, int, int]] = field(default_factory=list)

    def scaled_by(self, group: int, size: int) -> None:
        """Make the whole term proportional to the number of units that ``group`` keeps of ``size``."""
        self.shares.append((group, len(self.widths), 1))
        self.widths.append(size)
        self.multiplier /= size


def parameter_term(
    parameter: Tensor,
    cuts: Sequence[tuple[int, Cut]],
    groups: Sequence[UnitGroup],
    multiplier: float,
) -> Term:
    """The cost of one parameter: the product of its dimensions.

    Args:
        parameter: The parameter.
        cuts: The cuts of it, each with the index of its group.
        groups: All groups.
        multiplier: Cost of one element.
    """
    term = Term(multiplier, list(parameter.shape))
    by_dim: dict[int | None, list[tuple[int, Cut]]] = {}
    for number, cut in cuts:
        by_dim.setdefault(cut.dim, []).append((number, cut))
    for dim, here in by_dim.items():
        if dim is None:
            for number, _ in here:
                term.scaled_by(number, 1)
            continue
        owners = [owners_along(cut, groups[n].size, parameter.shape[dim]) for n, cut in here]
        crossed = next(
            (
                (i, j)
                for i, j in combinations(range(len(here)), 2)
                if bool(((owners[i] >= 0) & (owners[j] >= 0)).any())
            ),
            (),
        )
        for place, (number, cut) in enumerate(here):
            if place in crossed:  # both cut the same elements, as rows and columns: separate widths
                term.scaled_by(number, groups[number].size)
            else:
                term.shares.append((number, dim, cut.per_unit))
    return term


def product_cost(
    model: nn.Module,
    groups: Sequence[UnitGroup],
    uses: Mapping[int, float] | None = None,
    module_costs: Mapping[str, float] | None = None,
    repeats: bool = False,
) -> ProductCost:
    """Build the cost of ``model`` as a function of the units kept.

    Args:
        model: The model; it may be on the meta device.
        groups: Its unit groups.
        uses: Cost of each element of a parameter, by the parameter's ``id``; parameters that aren't named
            cost nothing. None: 1 for every parameter.
        module_costs: Cost of modules' operations without parameters, by module name: proportional to the
            units of the groups that own the module or what it is part of, constant for other modules.
        repeats: Whether the cost is one of running: then that of modules that match a group's
            ``repeated`` is proportional to its units too.

    Returns:
        The cost.
    """
    tensors = named_tensors(model)
    cuts: dict[int, list[tuple[int, Cut]]] = {}
    for number, group in enumerate(groups):
        for cut in group.cuts:
            if is_of_expert(group, tensors.get(cut.name)) and uses is not None:
                continue  # as many experts run for a token as before
            cuts.setdefault(id(tensors.get(cut.name)), []).append((number, cut))
    repeating = [(g, group.repeated) for g, group in enumerate(groups) if group.repeated]
    layers = [(g, group.owner) for g, group in enumerate(groups) if group.is_whole]
    terms = []
    for name, parameter in model.named_parameters():
        multiplier = 1.0 if uses is None else uses.get(id(parameter), 0.0)
        if multiplier:
            term = parameter_term(parameter, cuts.get(id(parameter), []), groups, multiplier)
            terms.append((name, term))
    for name, cost in (module_costs or {}).items():
        term = Term(cost, [])
        for g in owning(name, groups):
            term.scaled_by(g, groups[g].size)
        for g, layer in layers:
            if name == layer or name.startswith(f'{layer}.'):
                term.scaled_by(g, 1)
        terms.append((name, term))
    for name, term in terms if repeats else ():
        for g, patterns in repeating:
            if matches_any(patterns, name):
                term.scaled_by(g, groups[g].size)
    return stacked([term for _, term in terms], groups)


def owning(name: str, groups: Sequence[UnitGroup]) -> list[int]:
    """The groups whose units a module's operations are made for: of the nearest module that owns any."""
    owners = {
        g: group.owner
        for g, group in enumerate(groups)
        if not group.is_whole
        and not group.repeated
        and (group.owner in ('', name) or name.startswith(f'{group.owner}.'))
    }
    nearest = max(owners.values(), key=len, default='')
    return [g for g, owner in owners.items() if owner == nearest]


def is_of_expert(group: UnitGroup, tensor: Tensor | None) -> bool:
    """Whether a tensor holds weights of all experts that are units of a group."""
    return group.kind == 'expert' and tensor is not None and tensor.dim() == 3


def stacked(terms: Sequence[Term], groups: Sequence[UnitGroup]) -> ProductCost:
    """The terms as a :class:`ProductCost`; those that no group cuts are summed to its constant."""
    constant = sum(t.multiplier * math.prod(t.widths) for t in terms if not t.shares)
    terms = [term for term in terms if term.shares]
    dims = max((len(term.widths) for term in terms), default=1)
    multipliers = torch.tensor([term.multiplier for term in terms], dtype=torch.float64)
    widths = torch.ones(len(terms), dims, dtype=torch.float64)
    shares = torch.zeros(len(terms), dims, len(groups), dtype=torch.float64)
    for t, term in enumerate(terms):
        widths[t, : len(term.widths)] = torch.tensor(term.widths, dtype=torch.float64)
        for g, dim, share in term.shares:
            shares[t, dim, g] += share
    sizes = torch.tensor([group.size for group in groups])
    return ProductCost(multipliers, widths, shares, sizes, float(constant))


class RangeCost:
    """What of a cost the units hold: a cost less what is left of it when all of them are gone.

    Args:
        whole: The cost of the whole model.
        groups: The groups whose units may go.
    """

    def __init__(self, whole: Cost, groups: Sequence[UnitGroup]):
        self.whole = whole
        self.rest = whole.total(torch.zeros(len(groups), dtype=torch.long))

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return self.whole.total(counts) - self.rest

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`."""
        return self.whole.marginal(counts)


class ScaledCost:
    """A cost whose savings turned out to be ``factor`` times what they had been taken for.

    Args:
        cost: The cost as predicted.
        factor: What its savings are multiplied by.
        dense: Its value for the dense model.
    """

    def __init__(self, cost: Cost, factor: float, dense: float):
        self.cost, self.factor, self.dense = cost, factor, dense

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return self.dense - self.factor * (self.dense - self.cost.total(counts))

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`."""
        return self.factor * self.cost.marginal(counts)


class UnitCost:
    """A cost of 1 for every unit, regardless of its size."""

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return float(counts.sum())

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`."""
        return torch.ones(len(counts), dtype=torch.float64)


class TableCost:
    """Costs measured for each group at a few numbers of units, linearly interpolated.

    The cost of the model is estimated as ``base - factor * sum_g (costs_g[dense] - costs_g[kept])``.

    Args:
        base: Cost of the dense model.
        tables: For each group ``(counts, costs)``, both ascending, up to the dense count.
        factor: What the tables' savings are multiplied by.
    """

    def __init__(self, base: float, tables: Sequence[tuple[Tensor, Tensor]], factor: float = 1.0):
        self.base, self.tables, self.factor = base, list(tables), factor

    def _saved(self, group: int, kept: float) -> float:
        counts, costs = self.tables[group]
        right = int(torch.searchsorted(counts, torch.tensor(float(kept))).clamp(1, len(counts) - 1))
        span = counts[right] - counts[right - 1]
        share = (kept - counts[right - 1]) / span
        cost = costs[right - 1] + share * (costs[right] - costs[right - 1])
        return float(costs[-1] - cost)

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        saved = sum(self._saved(g, int(kept)) for g, kept in enumerate(counts))
        return self.base - self.factor * saved

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`: the mean saving per unit over the whole table, whatever ``counts`` are."""
        slopes = [
            float((costs[-1] - costs[0]) / (widths[-1] - widths[0]))
            for widths, costs in self.tables
        ]
        return torch.tensor(slopes, dtype=torch.float64).clamp_min(1e-12)
