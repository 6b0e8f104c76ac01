"""``--meta``: planning a pruning by shapes alone, on the meta device."""

from copy import deepcopy

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..checkpoints.model_loading import Loaded
from ..common.errors import UserError
from ..common.progress import expect
from ..common.timing import timed
from ..evaluation.memory_estimate import memory_table
from ..evaluation.profiling import profile
from ..methods.pruners import Pruner, ScoredUnits
from .expected_steps import guessed, planning_step, scoring_steps
from .options import PruneOptions
from .prune import data_factory, make_plan, score
from .report_building import start_report
from .run_report import MemoryRow, RunReport
from .save_results import write_record, write_unit_tables
from .streamed_estimate import planned


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
        pruner: A structured one, whose criterion gives way to ``Random`` unless a table has scores; or
            any with ``execution.mode='streamed'``, for what that will take.
        options: Those that say where scores and results go.
        write: Whether to write ``report.json``, ``summary.csv``, ``report.csv`` and the tables of units.

    Returns:
        The report, with ``scores`` (where they come from) and ``memory`` beside the usual keys.

    Raises:
        UserError: what needs weights or a clock is asked for.
    """
    if pruner.execution.streamed and not pruner.removes_units:
        return plan_weights(cfg, pruner, options, write)
    pruner, scores = pruner.without_weights(bool(options.from_table))
    if options.from_table:
        scores = f'from {options.from_table}'
    seconds: dict[str, float] = {}
    expect([guessed('load'), *scoring_steps(pruner, bool(options.from_table))])
    expect([planning_step(pruner), guessed('slim'), guessed('profile')])
    with timed(seconds, 'load'):
        model = build_on_meta(cfg)
    loaded = Loaded(model, {'meta': {}}, None)
    scored = score(pruner, loaded, options, data_factory(cfg, pruner))
    plan = make_plan(pruner, loaded, options, scored)
    seconds.update(plan.seconds)
    with timed(seconds, 'slim'):
        slimmed = pruner.apply(deepcopy(model), plan, compensate=False).model
    with timed(seconds, 'profile'):
        profiles = profile([model, slimmed], pruner.profile, latency=False)
    report = start_report(cfg, pruner, options, model, plan, profiles)
    report.scores = scores
    rows = memory_table({'dense': model, 'pruned': slimmed})
    report.memory = [MemoryRow(**row) for row in rows]
    report.notes['memory'] = (
        'GiB on the fullest rank for weights, gradients and the moments of AdamW, in the types that '
        'the parameters have; without activations, and the blocks that FSDP2 gathers'
    )
    if pruner.execution.streamed:
        report.streamed = planned(model, slimmed, pruner)
    report.seconds = seconds
    if write and plan.units and dist.is_main_process():
        with timed(seconds, 'save'):
            write_unit_tables(plan.units, None, options.output_dir)
        write_record(report, options.output_dir)
    return report


def plan_weights(cfg: Config, pruner: Pruner, options: PruneOptions, write: bool) -> RunReport:
    """What a streamed pruning of single weights, which changes no shapes, will take."""
    seconds: dict[str, float] = {}
    with timed(seconds, 'load'):
        model = build_on_meta(cfg)
    plan = pruner.plan_from(model, ScoredUnits())
    with timed(seconds, 'profile'):
        profiles = profile([model], pruner.profile, latency=False)
    report = start_report(cfg, pruner, options, model, plan, profiles)
    report.memory = [MemoryRow(**row) for row in memory_table({'dense': model, 'pruned': model})]
    report.streamed = planned(model, model, pruner)
    report.seconds = seconds
    if write and dist.is_main_process():
        write_record(report, options.output_dir)
    return report
