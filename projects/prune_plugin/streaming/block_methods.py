"""What is done to one block after the other: the part of a pruning that differs between pruners."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..common.errors import UserError
from ..methods.pruners import Pruner
from ..methods.pruners.plan import UnitPlan
from ..methods.pruners.structured import StructuredPruner
from ..methods.pruners.unstructured import WeightPruner
from ..structure.prune_state import PruneState
from ..structure.slimming import mask, slim
from ..structure.unit_group import UnitGroup
from .chain import BlockChain
from .view import BlockView, run_view
from .window_data import WindowData


@dataclass(frozen=True)
class Batches:
    """Which calibration batches pass the blocks.

    Attributes:
        pruned: How many pass the blocks as they are pruned.
        dense: How many of the first ones pass the dense blocks.
    """

    pruned: int = 0
    dense: int = 0


def batches_for(pruner: Pruner, count: int) -> Batches:
    """Which of ``count`` calibration batches a pruner needs where."""
    if isinstance(pruner, StructuredPruner) and pruner.compensation is not None:
        share = getattr(pruner.compensation, 'dense_share', 0.0)
        return Batches(count, max(1, round(share * count)) if share else 0)
    sparsifier = pruner.sparsifier if isinstance(pruner, WeightPruner) else None
    if sparsifier is None or not sparsifier.reads_inputs:
        return Batches()
    if not sparsifier.sequential:
        return Batches(0, count)
    share = sparsifier.dense_share
    return Batches(count, max(1, round(share * count)) if share else 0)


def check_by_blocks(pruner: Pruner) -> None:
    """Raise :class:`UserError` for what needs more of the model, or of the batches, than a block has."""
    sparsifier = pruner.sparsifier if isinstance(pruner, WeightPruner) else None
    refit = pruner.compensation if isinstance(pruner, StructuredPruner) else None
    on_disk = pruner.execution.offload == 'disk'
    asked: dict[str, tuple[Any, str]] = {
        'reconstruction': (pruner.reconstruction is not None, 'leave it out'),
        'sparsifier.weigh_outputs': (getattr(sparsifier, 'weigh_outputs', 0.0), 'set it to 0'),
        'sparsifier.targets': (
            on_disk and getattr(sparsifier, 'reads_streams', False),
            "take 'layer', or execution.offload='cpu'",
        ),
        'compensation.dense_targets': (
            on_disk and getattr(refit, 'dense_share', 0.0),
            "set it to 0, or take execution.offload='cpu'",
        ),
    }
    for key, (is_asked, instead) in asked.items():
        if is_asked:
            raise UserError(
                f"prune_cfg.{key} does not go with prune_cfg.execution.mode='streamed'"
                f'{" and offload=" + repr("disk") if on_disk else ""}; {instead}'
            )


@dataclass
class BlockResult:
    """What is known of a finished block.

    Attributes:
        weights: Name, shape, number of elements and of zeros of each weight that has a mask.
        zeros: How many zeros are among all that was written of it.
    """

    weights: list[list[Any]] = field(default_factory=list)
    zeros: int = 0


class BlockMethod:
    """Prunes a model block by block.

    Args:
        pruner: The pruner.

    Raises:
        UserError: something that it asks for needs more than one block at a time.
    """

    def __init__(self, pruner: Pruner):
        check_by_blocks(pruner)
        self.given = pruner

    def batches(self, count: int) -> Batches:
        """Which of ``count`` calibration batches are needed where."""
        return batches_for(self.given, count)

    def prune(self, view: BlockView, data: WindowData | None) -> BlockResult:
        """Prune a block, in place, without changing its shapes."""
        raise NotImplementedError

    def shrink(self, view: BlockView) -> None:
        """Remove from a pruned block what is zero."""

    def shrink_all(self, model: nn.Module) -> None:
        """Give a whole model on the meta device the shapes that its blocks will have."""

    def prune_outside(self, model: nn.Module) -> BlockResult:
        """Prune what is outside of the blocks, in place."""
        return BlockResult()


class WeightBlocks(BlockMethod):
    """Single weights become zero.

    Args:
        pruner: The pruner.
        ratios: Fraction to remove of each weight, by name.
        chain: The model's blocks.

    Raises:
        UserError: the method needs all weights at once, or inputs of weights outside of the blocks.
    """

    def __init__(self, pruner: WeightPruner, ratios: Mapping[str, float], chain: BlockChain):
        super().__init__(pruner)
        self.pruner, self.ratios, self.sparsifier = pruner, ratios, pruner.sparsifier
        if self.sparsifier.ranks_together:
            raise UserError(
                f'prune_cfg.sparsifier {type(self.sparsifier).__name__} with scope="global" ranks all '
                'weights together, but execution.mode "streamed" holds one block at a time; take '
                'scope="layer"'
            )
        self.outside = [name for name in ratios if chain.owner(name) is None]
        fixed = [n for n in self.outside if self.sparsifier.reads_inputs or n not in chain.late]
        if fixed:
            raise UserError(
                f"prune_cfg.execution.mode is 'streamed', but {fixed[0]} is outside of the blocks "
                f'({chain.blocks[0]} and so on); name it in prune_cfg.exclude'
            )

    def prune(self, view: BlockView, data: WindowData | None) -> BlockResult:
        """See :class:`BlockMethod`."""
        return self._prune(view, [n for n in self.ratios if n.startswith(f'{view.path}.')], data)

    def prune_outside(self, model: nn.Module) -> BlockResult:
        """See :class:`BlockMethod`."""
        return self._prune(model, self.outside, None)

    def _prune(self, model: nn.Module, names: list[str], data: WindowData | None) -> BlockResult:
        if not names:
            return BlockResult()
        ratios = {name: self.ratios[name] for name in names}
        with torch.no_grad():
            masks = self.pruner.set_to_zero(model, ratios, data, run_view)
        rows = [
            [n, list(keep.shape), keep.numel(), keep.numel() - int(keep.sum())]
            for n, keep in masks.items()
        ]
        return BlockResult(rows)


class UnitBlocks(BlockMethod):
    """Whole units are removed.

    Args:
        pruner: The pruner.
        plan: Which units are kept.
    """

    def __init__(self, pruner: StructuredPruner, plan: UnitPlan):
        super().__init__(pruner)
        self.pruner, self.state = pruner, plan.state

    def state_of(self, view: BlockView) -> PruneState:
        """The part of the plan that is about a block."""
        inside = {
            name: group
            for name, group in self.state.groups.items()
            if group.cuts[0].name.startswith(f'{view.path}.')
        }
        return PruneState(
            inside, {name: self.state.kept[name] for name in inside}, self.state.asked
        )

    def prune(self, view: BlockView, data: WindowData | None) -> BlockResult:
        """See :class:`BlockMethod`."""
        state = self.state_of(view)
        if self.pruner.compensation is not None and data is not None and state.reduced:
            self.pruner.compensation.apply(view, state, data, run_view)
            mask(
                view, state
            )  # later blocks are fitted without the units that no refit makes up for
        return BlockResult()

    def shrink(self, view: BlockView) -> None:
        """See :class:`BlockMethod`."""
        slim(view, self.state_of(view))

    def shrink_all(self, model: nn.Module) -> None:
        """See :class:`BlockMethod`."""
        slim(model, self.state)


def check_within_blocks(groups: Sequence[UnitGroup], chain: BlockChain) -> None:
    """Raise :class:`UserError` for units that have parts in several blocks, or outside of all."""
    for group in groups:
        names = [cut.name for cut in group.cuts]
        modules = [attr.module for attr in group.attrs]
        owners = {chain.owner(n) for n in names} | {chain.owner(f'{m}.') for m in modules}
        if len(owners) != 1 or None in owners:
            raise UserError(
                f'prune_cfg.execution.mode is "streamed", but the units of {group.name} have parts '
                'outside of one block; name them in prune_cfg.exclude, or take other prune_cfg.units'
            )
