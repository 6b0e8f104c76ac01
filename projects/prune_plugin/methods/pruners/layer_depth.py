"""Layers as such: pruning only some of them, and removing those that were emptied."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.validation import at_least
from ...structure.prune_state import PruneState
from ...structure.unit_group import UnitGroup, named_tensors
from ...structure.units.finder import with_layer_indices
from ...structure.units.prenorm_layers import PreNormLayers
from ..constraint import Cost


def check_range(start: int | None, end: int | None) -> None:
    """Raise :class:`UserError` unless ``start`` to ``end`` (excluded) is a range of layers, or open."""
    for key, value in (('layer_start', start), ('layer_end', end)):
        if value is not None:
            at_least(f'prune_cfg.{key}', value, 0)
    if end is not None and (start or 0) >= end:
        raise UserError(
            f'prune_cfg.layer_end is {end}; it must be above layer_start ({start or 0}), as it is the '
            'first layer that takes no part'
        )


def in_range(groups: Sequence[UnitGroup], start: int | None, end: int | None) -> list[UnitGroup]:
    """The groups of the layers from ``start`` on, up to but without ``end``; None: no bound.

    Raises:
        UserError: none is left.
    """
    low, high = start or 0, float('inf') if end is None else end
    chosen = [group for group in groups if low <= group.layer_idx < high]
    if not chosen:
        numbers = [group.layer_idx for group in groups]
        key, value = ('layer_start', start) if low > max(numbers) else ('layer_end', end)
        raise UserError(
            f'prune_cfg.{key} {value} leaves no unit group; layers are numbered '
            f'{min(numbers)} to {max(numbers)}'
        )
    return chosen


@dataclass(frozen=True)
class Block:
    """A layer that may go as a whole once its unit groups are empty.

    Attributes:
        layer: Its group of one unit, which owns every parameter.
        members: Positions of the unit groups inside it.
    """

    layer: UnitGroup
    members: tuple[int, ...]


def find_blocks(
    model: nn.Module, groups: Sequence[UnitGroup]
) -> tuple[list[Block], dict[str, str]]:
    """Pre-norm layers that add nothing to the residual stream when all of their units are gone.

    Args:
        model: The model; meta tensors will do.
        groups: Its unit groups, as far as they take part.

    Returns:
        The blocks, and ``{layer: reason}`` for layers that would still add a constant.
    """
    blocks, refused = [], {}
    for layer in with_layer_indices(model, PreNormLayers().find(model)[0]):
        prefix = f'{layer.name}.'
        inside = tuple(
            g
            for g, group in enumerate(groups)
            if group.name.startswith(prefix) and not group.is_whole
        )
        module = model.get_submodule(layer.name)
        cut = covered(model, [groups[g] for g in inside])
        linears = {
            f'{prefix}{name}': part
            for name, part in module.named_modules()
            if isinstance(part, nn.Linear)
        }
        weights = [n for n, p in module.named_parameters() if p.dim() > 1 and p.numel()]
        if not inside or any(f'{prefix}{name}' not in cut for name in weights):
            continue
        biases = [
            f'{name}.bias'
            for name, linear in linears.items()
            if linear.bias is not None
            and linear.out_features
            and 0 not in cut.get(f'{name}.weight', ())
        ]
        if biases:
            refused[layer.name] = f'emptied, it would still add {biases[0]}'
        else:
            blocks.append(Block(layer, inside))
    return blocks, refused


def covered(model: nn.Module, groups: Sequence[UnitGroup]) -> dict[str, set[int]]:
    """For each parameter the dimensions of which the groups' units own everything."""
    tensors = named_tensors(model)
    found: dict[str, set[int]] = {}
    for group in groups:
        for cut in group.cuts:
            tensor = tensors.get(cut.name)
            if tensor is None or cut.dim is None:
                continue
            if group.size * cut.per_unit == tensor.shape[cut.dim]:
                found.setdefault(cut.name, set()).add(cut.dim)
    return found


def needed_blocks(model: nn.Module, groups: Sequence[UnitGroup]) -> list[Block]:
    """:func:`find_blocks`, where ``remove_empty_layers`` asks for them.

    Raises:
        UserError: there are none, so the key would do nothing.
    """
    blocks, refused = find_blocks(model, groups)
    if not blocks:
        why = ''.join(f'; {name}: {reason}' for name, reason in list(refused.items())[:1])
        raise UserError(
            'prune_cfg.remove_empty_layers does nothing here: no pre-norm layer of the model passes '
            f'its input on when its units are gone{why}; leave it out'
        )
    return blocks


def with_layers(
    groups: Sequence[UnitGroup], blocks: Sequence[Block]
) -> tuple[list[UnitGroup], list[int]]:
    """The groups with those of ``blocks`` behind them, and the blocks' positions among them."""
    extended = list(groups)
    positions = {group.name: number for number, group in enumerate(groups)}
    for block in blocks:
        if block.layer.name not in positions:
            positions[block.layer.name] = len(extended)
            extended.append(block.layer)
    return extended, [positions[block.layer.name] for block in blocks]


class DepthCost:
    """The cost of a model that loses each block whose unit groups are empty.

    Args:
        full: Cost by the counts of all groups, those of :func:`with_layers`.
        groups: How many groups there are without the added ones.
        blocks: The blocks.
        positions: Their places among all groups.
    """

    def __init__(self, full: Cost, groups: int, blocks: Sequence[Block], positions: Sequence[int]):
        self.full, self.groups = full, groups
        self.positions = torch.tensor(positions)
        self.added = int(self.positions.max()) + 1 - groups
        self.block = torch.tensor([b for b, block in enumerate(blocks) for _ in block.members])
        self.member = torch.tensor([g for block in blocks for g in block.members])

    def _extended(self, counts: Tensor) -> Tensor:
        extended = torch.cat([counts, counts.new_ones(max(self.added, 0))])
        left = counts.new_zeros(len(self.positions)).index_add_(0, self.block, counts[self.member])
        extended[self.positions] = torch.minimum(extended[self.positions], left.clamp(max=1))
        return extended

    def total(self, counts: Tensor) -> float:
        """See :class:`Cost`."""
        return self.full.total(self._extended(counts))

    def marginal(self, counts: Tensor) -> Tensor:
        """See :class:`Cost`; what a block saves beyond its units is not shared out among them."""
        everything = torch.cat([counts, counts.new_ones(max(self.added, 0))])
        return self.full.marginal(everything)[: self.groups]


def depth_cost(
    model: nn.Module, groups: Sequence[UnitGroup], cost_of: Callable[[list[UnitGroup]], Cost]
) -> DepthCost:
    """What a model costs that loses its blocks with their last units.

    Args:
        model: The model.
        groups: Its unit groups.
        cost_of: Its cost by the counts of some groups.

    Raises:
        UserError: see :func:`needed_blocks`.
    """
    blocks = needed_blocks(model, groups)
    extended, positions = with_layers(groups, blocks)
    return DepthCost(cost_of(extended), len(groups), blocks, positions)


def emptied_layers(blocks: Sequence[Block], kept: Sequence[Tensor]) -> list[UnitGroup]:
    """The layers of which no unit is kept."""
    return [b.layer for b in blocks if not any(len(kept[g]) for g in b.members)]


def without_emptied(model: nn.Module, groups: Sequence[UnitGroup], state: PruneState) -> PruneState:
    """The state, changed so that layers of which no unit is kept go as a whole."""
    kept = [state.kept[group.name] for group in groups]
    for layer in emptied_layers(needed_blocks(model, groups), kept):
        state.groups[layer.name], state.kept[layer.name] = layer, torch.arange(0)
    return state
