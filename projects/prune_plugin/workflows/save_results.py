"""Writing what a pruning run made."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from ..checkpoints.checkpoint_file import model_meta, save_file
from ..checkpoints.model_loading import Loaded, plain_meta
from ..checkpoints.optimizer_state import (
    build_quietly,
    misfit,
    parameter_order,
    slim_optimizer_state,
)
from ..checkpoints.seal import seal
from ..common.errors import first_line
from ..common.json_csv import write_csv, write_json
from ..methods.pruners import Pruned, Pruner, UnitPlan
from ..structure.prune_state import PruneState, compose
from ..training.hooks.mask_hook import pack_masks
from .options import PruneOptions, PruneResult
from .reports import UnitTable, write_groups, write_html, write_plots, write_summary
from .run_report import RunReport, WeightRow


def file_stem(cfg: Config, pruner: Pruner) -> str:
    """First word of the config's name in lower case: ``VAD_tiny_stage_2.py`` gives ``vad``."""
    return pruner.name or Path(cfg.filename or 'model').stem.split('_')[0].lower()


def meta_of(pruner: Pruner, loaded: Loaded) -> dict[str, Any]:
    """What a pruned checkpoint's ``meta`` holds beside its prune state."""
    meta = {**plain_meta(loaded.checkpoint), **model_meta(loaded.model)}
    return {**meta, 'prune_cfg': pruner.to_dict()}


def save_pruned(
    cfg: Config,
    pruner: Pruner,
    loaded: Loaded,
    pruned: Pruned,
    report: RunReport | None,
    options: PruneOptions,
) -> Path:
    """Write ``<name>_structured_pruned.pth`` or, with masks, ``<name>_pruned.pth`` (on rank 0).

    Args:
        cfg: The config.
        pruner: What pruned the model.
        loaded: The model as given.
        pruned: The pruned one.
        report: Its ``achieved`` goes into the prune state, if there is one.
        options: Say where.
    """
    data: dict[str, Any] = {
        'meta': meta_of(pruner, loaded),
        'state_dict': cpu_weights(pruned.model),
    }
    optimizer, kind = loaded.checkpoint.get('optimizer'), ''
    if pruned.state is not None:
        kind = '_structured'
        state = compose(loaded.prior_state, pruned.state)
        state.achieved = dict(report.achieved) if report else {}
        data['meta']['prune_state'] = state.to_dict()
        optimizer = carried_optimizer(cfg, loaded, pruned.model, pruned.state)
    else:
        data['masks'] = pack_masks(dict(pruned.masks))
    if optimizer and fits(cfg, optimizer):
        data['optimizer'] = optimizer
    path = options.output_dir / f'{file_stem(cfg, pruner)}{kind}_pruned.pth'
    seal(data)
    if dist.is_main_process():
        save_file(data, path)
    return path


def fits(cfg: Config, optimizer: Mapping) -> bool:
    """Whether the config's optimizer can go on with a checkpoint's state; if not, a line says why."""
    if not cfg.get('optim_wrapper'):
        return True
    try:
        why = misfit(optimizer, cfg.optim_wrapper)
    except (
        AssertionError,
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        why = first_line(error)
    if why:
        print_log(f"the checkpoint's optimizer state is left out: {why}", 'current')
    return not why


def cpu_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def carried_optimizer(
    cfg: Config, loaded: Loaded, slimmed: nn.Module, state: PruneState
) -> dict | None:
    """The checkpoint's optimizer state cut for the slim model; None, with a word, if it can't be."""
    saved = loaded.checkpoint.get('optimizer')
    if not saved or not cfg.get('optim_wrapper'):
        return None
    try:
        before = parameter_order(loaded.model, cfg.optim_wrapper)
        after = parameter_order(slimmed, cfg.optim_wrapper)
        entries = slim_optimizer_state(saved, before, after, state)
    except (TypeError, IndexError, RuntimeError, ValueError) as error:
        print_log(f"the checkpoint's optimizer state is left out: {error}", 'current')
        return None
    fresh = build_quietly(slimmed, cfg.optim_wrapper).state_dict()
    return {**fresh, 'state': entries}


def write_report(result: PruneResult, folder: Path) -> None:
    """Write ``report.json``, ``summary.csv``, the tables of units, the plots and ``report.html``."""
    write_record(result.report, folder)
    if result.plan and (units := result.plan.units):
        write_unit_tables(units, result.prior_state, folder)
    if result.report.weights:
        write_zeros(result.report.weights, folder / 'zeros.csv')
    drawn = write_plots(result.report, folder)
    write_html(result.report, folder, drawn, result.explorer)


def write_zeros(rows: Sequence[WeightRow], path: Path) -> None:
    """Write how many zeros each weight has."""
    columns = ('name', 'shape', 'size', 'zeros', 'share')
    lines = [
        (
            row.name,
            'x'.join(map(str, row.shape)),
            row.size,
            row.zeros,
            f'{row.zeros / row.size:.6f}',
        )
        for row in rows
    ]
    write_csv(columns, lines, path)


def write_record(report: RunReport, folder: Path) -> None:
    """Write ``report.json`` and ``summary.csv``."""
    write_json(report.to_dict(), folder / 'report.json')
    write_summary(report, folder / 'summary.csv')


def write_unit_tables(plan: UnitPlan, prior_state: PruneState | None, folder: Path) -> None:
    """Write ``report.csv`` and the tables of units; for ``prior_state`` see :class:`UnitTable`."""
    write_groups(plan, folder / 'report.csv')
    UnitTable(plan, prior_state).write_tables(folder)


def read_report(folder: Path) -> RunReport | None:
    """The report that a run of this or an earlier version has left in a folder; None if there is none."""
    path = folder / 'report.json'
    if not path.is_file():
        return None
    return RunReport.from_dict(json.loads(path.read_text(encoding='utf-8')))
