"""What a pruner does to one block after the other: decided before the first block is changed."""

from mmengine.logging import print_log
from torch import nn

from ..calibration.layer_inputs import check_layer
from ..checkpoints.model_loading import Loaded
from ..common.errors import UserError
from ..methods.pruners import DataFactory, Plan, Pruner, ScoredUnits
from ..methods.pruners.structured import StructuredPruner
from ..methods.pruners.unstructured import WeightPruner
from ..streaming.block_methods import BlockMethod, UnitBlocks, WeightBlocks, check_within_blocks
from ..streaming.skeleton import Skeleton
from ..streaming.unit_scores import check_criterion, scores_by_block
from .options import PruneOptions
from .prune import make_plan
from .reports import read_scores


def method_for(
    pruner: Pruner,
    meta: nn.Module,
    skeleton: Skeleton,
    data: DataFactory,
    options: PruneOptions,
) -> tuple[BlockMethod, Plan]:
    """The method of a pruner, and its plan.

    Args:
        pruner: The pruner.
        meta: The model on the meta device.
        skeleton: The same model and its files.
        data: Gives calibration batches.
        options: See :class:`PruneOptions`.

    Raises:
        UserError: the pruner can't work block by block.
    """
    if isinstance(pruner, WeightPruner):
        return weight_method(pruner, skeleton)
    if isinstance(pruner, StructuredPruner):
        return unit_method(pruner, meta, skeleton, data, options)
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


def unit_method(
    pruner: StructuredPruner,
    meta: nn.Module,
    skeleton: Skeleton,
    data: DataFactory,
    options: PruneOptions,
) -> tuple[BlockMethod, Plan]:
    """Whole units: scored block by block, or by a table, and ranked together."""
    if pruner.budget.measured:
        raise UserError(
            f"prune_cfg.execution.mode is 'streamed', but prune_cfg.budget.type "
            f'{pruner.budget.quantity!r} times the whole model; take a params or flops budget'
        )
    if not options.from_table:
        check_criterion(pruner)
    if pruner.weight_level:
        print_log('streamed, no second checkpoint is written for weight_level', 'current')
    found = pruner.find(meta)
    check_within_blocks(found.groups, skeleton.chain)
    if options.from_table:
        importance = read_scores(options.from_table, found.groups)
    else:
        users = [user for user in pruner.data_users() if pruner.criterion.needed]
        batches = pruner.batches(data, users[0]) if users else None
        importance = scores_by_block(pruner, skeleton, found.groups, batches, options.output_dir)
    scored = ScoredUnits(found.groups, importance, found.refused, proofs=found.proofs)
    plan = make_plan(pruner, Loaded(meta, {'meta': {}}, None), options, scored)
    assert plan.units is not None
    return UnitBlocks(pruner, plan.units), plan
