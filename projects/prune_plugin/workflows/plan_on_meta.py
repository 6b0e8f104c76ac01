"""``--meta``: planning a pruning by shapes alone, on the meta device."""

from copy import deepcopy

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..checkpoints.model_loading import Loaded
from ..common.errors import UserError
from ..common.timing import timed
from ..evaluation.memory_estimate import memory_table
from ..evaluation.profiling import profile
from ..methods.criteria import Random
from ..methods.pruners import Pruner, StructuredPruner
from ..structure.slimming import slim
from .options import PruneOptions
from .prune import data_factory, make_plan, survey_of
from .report_building import start_report
from .run_report import MemoryRow, RunReport
from .save_results import write_record, write_unit_tables

#: What the report says of scores that stand in for the criterion's.
RANDOM = 'random, in the place of {criterion}, which reads weights or data'


def build_on_meta(cfg: Config) -> nn.Module:
    """The config's dense model on the meta device: shapes and types, no weights."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    if not cfg.get('model'):
        raise UserError(f'{cfg.filename} has no model')
    with torch.device('meta'):
        return MODELS.build(deepcopy(cfg.model)).eval()


def plan_on_meta(cfg: Config, pruner: Pruner, options: PruneOptions, write: bool) -> RunReport:
    """Plan without weights and data: what would be left, what it costs, what a rank would hold.

    Args:
        cfg: The config.
        pruner: A structured one. Its criterion gives way to ``Random`` unless a table has scores.
        options: Those that say where scores and results go.
        write: Whether to write ``report.json``, ``summary.csv``, ``report.csv`` and the tables of units.

    Returns:
        The report, with ``scores`` (where they come from) and ``memory`` beside the usual keys.

    Raises:
        UserError: what needs weights or a clock is asked for.
    """
    if not isinstance(pruner, StructuredPruner):
        raise UserError(
            f'--meta plans by shapes, which a {type(pruner).__name__} does not change; '
            'take a StructuredPruner'
        )
    if pruner.budget.searched:
        raise UserError(
            f'--meta: prune_cfg.budget.type {pruner.budget.quantity!r} evaluates models, which needs '
            'weights and data; take a params or flops budget'
        )
    if pruner.budget.measured:
        raise UserError(
            '--meta: nothing can be timed without weights; take a params or flops budget'
        )
    seconds: dict[str, float] = {}
    scores = f'from {options.from_table}'
    if not options.from_table:
        scores = type(pruner.criterion).__name__
        if not isinstance(pruner.criterion, Random):
            scores = RANDOM.format(criterion=scores)
            pruner.criterion = Random()
    with timed(seconds, 'load'):
        model = build_on_meta(cfg)
    loaded = Loaded(model, {'meta': {}}, None)
    survey = survey_of(pruner, loaded, options, data_factory(cfg, pruner))
    plan = make_plan(pruner, loaded, options, survey)
    seconds.update(plan.seconds)
    with timed(seconds, 'slim'):
        slimmed = slim(deepcopy(model), plan.state)
    with timed(seconds, 'profile'):
        profiles = profile([model, slimmed], pruner.profile, latency=False)
    report = start_report(cfg, pruner, options, model, plan, profiles, {})
    report.scores = scores
    rows = memory_table({'dense': model, 'pruned': slimmed})
    report.memory = [MemoryRow(**row) for row in rows]
    report.notes['memory'] = (
        'GiB on the fullest rank for weights, gradients and the moments of AdamW, in the types that '
        'the parameters have; without activations, and the blocks that FSDP2 gathers'
    )
    report.seconds = seconds
    if write and dist.is_main_process():
        with timed(seconds, 'save'):
            write_unit_tables(plan, None, options.output_dir)
        write_record(report, options.output_dir)
    return report
