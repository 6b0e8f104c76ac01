"""What a pruner does to one block after the other: decided before the first block is changed."""

from ..calibration.layer_inputs import check_layer
from ..common.errors import UserError
from ..methods.pruners import DataFactory, Plan, Pruner, ScoredUnits
from ..methods.pruners.unstructured import WeightPruner
from ..streaming.block_methods import BlockMethod, WeightBlocks
from ..streaming.skeleton import Skeleton
from .options import PruneOptions


def method_for(
    pruner: Pruner, skeleton: Skeleton, data: DataFactory, options: PruneOptions
) -> tuple[BlockMethod, Plan]:
    """The method of a pruner, and its plan.

    Args:
        pruner: The pruner.
        skeleton: The model and its files.
        data: Gives calibration batches.
        options: See :class:`PruneOptions`.

    Raises:
        UserError: the pruner can't work block by block.
    """
    if isinstance(pruner, WeightPruner):
        return weight_method(pruner, skeleton)
    raise UserError(
        f"prune_cfg.execution.mode is 'streamed', which a {type(pruner).__name__} does not offer"
    )


def weight_method(pruner: WeightPruner, skeleton: Skeleton) -> tuple[BlockMethod, Plan]:
    """Single weights: how many of each."""
    model = skeleton.model
    weights = pruner.chosen(model)
    pruner.sparsifier.check_widths(weights)
    if pruner.sparsifier.reads_inputs:
        for name in weights:
            path = name.rpartition('.')[0]
            check_layer(path, model.get_submodule(path))
    plan = pruner.plan_from(model, ScoredUnits(refused=pruner.left_out(model)))
    return WeightBlocks(pruner, plan.ratios, skeleton.chain), plan
