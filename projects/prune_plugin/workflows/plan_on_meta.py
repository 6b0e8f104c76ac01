"""``--meta``: planning a pruning by shapes alone, on the meta device."""

from copy import deepcopy
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..checkpoints.model_loading import Loaded
from ..common.errors import UserError
from ..common.json_csv import write_json
from ..common.timing import timed
from ..evaluation.memory_estimate import memory_table
from ..evaluation.profiling import profile
from ..methods.pruners import Pruner
from .options import PruneOptions
from .prune import data_factory, make_plan, score
from .reports import UnitTable, write_groups
from .run_report import start_report


def build_on_meta(cfg: Config) -> nn.Module:
    """The config's dense model on the meta device: shapes and types, no weights."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    if not cfg.get('model'):
        raise UserError(f'{cfg.filename} has no model')
    with torch.device('meta'):
        return MODELS.build(deepcopy(cfg.model)).eval()


def plan_on_meta(cfg: Config, pruner: Pruner, options: PruneOptions, write: bool) -> dict[str, Any]:
    """Plan without weights and data: what would be left, what it costs, what a rank would hold.

    Args:
        cfg: The config.
        pruner: A structured one. Its criterion gives way to ``Random`` unless a table has scores.
        options: Those that say where scores and results go.
        write: Whether to write ``report.json``, ``report.csv`` and the tables of units.

    Returns:
        The report, with ``scores`` (where they come from) and ``memory`` beside the usual keys.

    Raises:
        UserError: what needs weights or a clock is asked for.
    """
    pruner, scores = pruner.without_weights(bool(options.from_table))
    if options.from_table:
        scores = f'from {options.from_table}'
    seconds: dict[str, float] = {}
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
    report['scores'] = scores
    report['memory'] = memory_table({'dense': model, 'pruned': slimmed})
    report['notes']['memory'] = (
        'GiB on the fullest rank for weights, gradients and the moments of AdamW, in the types that '
        'the parameters have; without activations, and the blocks that FSDP2 gathers'
    )
    report['seconds'] = seconds
    if write and plan.units and dist.is_main_process():
        with timed(seconds, 'save'):
            write_groups(plan.units, options.output_dir / 'report.csv')
            UnitTable(plan.units).write_tables(options.output_dir)
        write_json(report, options.output_dir / 'report.json')
    return report
