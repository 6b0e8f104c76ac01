"""Pruning a config's model into files: what ``tools/analysis_struct.py`` and ``train.py`` do."""

import sys
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from .batch_norm import recalibrate
from .calibration import CalibrationData
from .checkpoint import model_meta, save_file
from .distillation import targets_for
from .distributed import on_rank_0
from .errors import UserError
from .evaluation import TestSet, headline
from .hooks.mask_hook import pack_masks
from .loading import Loaded, load_model, plain_meta
from .optimizer_state import build_quietly, parameter_order, slim_optimizer_state
from .profiling import environment, latency_note, profile
from .pruners import (
    DataFactory,
    Plan,
    Pruner,
    StructuredPruner,
    WeightPruner,
    build_pruner,
    timed,
)
from .reports import UnitTable, read_scores, write_groups, write_json, write_plots
from .settings import CalibrationSettings
from .slim import slim
from .sparsifiers import Magnitude
from .state import PruneState, compose
from .weights import prunable_weights, select_weights


@dataclass
class Options:
    """What a run is asked for beside the config.

    Attributes:
        checkpoint: File to prune; None: freshly initialised weights.
        output_dir: Where results go; must exist.
        dry_run: Plan and report only; write nothing but ``save_table``.
        save_table: Where to save the scores.
        from_table: Where to read them instead of computing them.
    """

    checkpoint: str | None
    output_dir: Path
    dry_run: bool = False
    save_table: str | None = None
    from_table: str | None = None


@dataclass
class Outcome:
    """What a run made.

    Attributes:
        report: The content of ``report.json``.
        structured: Path of the slim checkpoint, if one was written.
        weight_level: Path of the weight-level pruned one.
        test_set: The test data, for evaluating again after training.
        plan: What was decided.
        before: Prune state of the model given, if it was slim already.
    """

    report: dict[str, Any]
    structured: Path | None = None
    weight_level: Path | None = None
    test_set: TestSet | None = None
    plan: Plan | None = field(default=None, repr=False)
    before: PruneState | None = field(default=None, repr=False)

    def trained(self, which: str | None = None) -> Path:
        """The checkpoint that recovery trains.

        Args:
            which: ``'structured'`` or ``'unstructured'``; None: the structured one if there is one.
        """
        if which == 'unstructured':
            return self.weight_level
        return self.structured or self.weight_level


def pruner_of(cfg: Config, ratio: float | None = None) -> Pruner:
    """The checked pruner of a config; without a ``prune_cfg``, the default one.

    Args:
        cfg: The config.
        ratio: Overrides ``prune_cfg.budget.ratio``.
    """
    prune_cfg = cfg.get('prune_cfg')
    prune_cfg = {} if prune_cfg is None else prune_cfg
    if not hasattr(prune_cfg, 'items'):
        raise UserError(f'prune_cfg is {prune_cfg!r}; it must be a dict')
    prune_cfg = dict(prune_cfg.to_dict() if hasattr(prune_cfg, 'to_dict') else prune_cfg)
    if ratio is not None:
        weight_level = prune_cfg.get('type') == 'WeightPruner'
        budget = prune_cfg.get('budget', {'type': 'weights' if weight_level else 'params'})
        prune_cfg['budget'] = {**budget, 'ratio': ratio} if hasattr(budget, 'items') else budget
    return build_pruner(prune_cfg)


def file_stem(cfg: Config, pruner: Pruner) -> str:
    """First word of the config's name in lower case: ``VAD_tiny_stage_2.py`` gives ``vad``."""
    return pruner.name or Path(cfg.filename or 'model').stem.split('_')[0].lower()


def prune_to_files(cfg: Config, pruner: Pruner, options: Options) -> Outcome:
    """Prune the config's model, evaluate before and after, and write everything down.

    All ranks call it; rank 0 alone writes.

    Args:
        cfg: The config.
        pruner: From :func:`pruner_of`.
        options: See :class:`Options`.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    seconds: dict[str, float] = {}
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    with timed(seconds, 'load'):
        loaded = load_model(cfg, options.checkpoint, device)
    check_before(cfg, pruner, loaded.model)
    plan, masks, slimmed, masked = None, {}, None, None
    if isinstance(pruner, StructuredPruner):
        plan = make_plan(cfg, pruner, loaded, options)
        seconds.update(plan.seconds)
        with timed(seconds, 'slim'):
            slimmed = slim(deepcopy(loaded.model), plan.state)
        if not options.dry_run:
            masks = magnitude_masks(loaded.model, pruner)
    elif isinstance(pruner, WeightPruner):
        with timed(seconds, 'allocate'):
            masks = pruner.keep_masks(loaded.model)
    with timed(seconds, 'profile'):
        models = [loaded.model] if slimmed is None else [loaded.model, slimmed]
        profiles = on_rank_0(lambda: profile(models, pruner.profile, not options.dry_run))
    report = start_report(cfg, pruner, options, loaded.model, plan, profiles, masks)
    outcome = Outcome(report, plan=plan, before=loaded.before)
    if not options.dry_run:
        masked = masked_copy(loaded.model, masks) if masks else None
        if pruner.calibration.recalibrate_bn:
            with timed(seconds, 'recalibrate'):
                renew_batch_norms(cfg, pruner, [m for m in (slimmed, masked) if m is not None])
        with timed(seconds, 'evaluate'):
            outcome.test_set = TestSet(cfg)
            report['dense']['metrics'] = outcome.test_set.evaluate(loaded.model, 'dense')
            pruned = slimmed if slimmed is not None else masked
            report['pruned']['metrics'] = outcome.test_set.evaluate(pruned, 'pruned')
            if report['dense']['metrics']:
                report['headline'] = headline(outcome.test_set.metrics, report['dense']['metrics'])
        with timed(seconds, 'save'):
            save_checkpoints(cfg, pruner, loaded, slimmed, masked, masks, outcome, options)
    steps = ('load', 'discover', 'calibrate', 'score', 'allocate', 'slim', 'save', 'evaluate')
    report['seconds'] = {step: seconds.pop(step, 0.0) for step in steps} | seconds
    if not options.dry_run and dist.is_main_process():
        write_report(outcome, options.output_dir)
    dist.barrier()
    return outcome


def check_before(cfg: Config, pruner: Pruner, model: nn.Module) -> None:
    """Raise :class:`UserError` for what the pruner's settings ask of config and model in vain."""
    if pruner.recovery.distill is not None:
        targets_for(model, pruner.recovery.distill.get('targets'))
    if pruner.calibration.recalibrate_bn and not cfg.get('train_dataloader'):
        raise UserError(
            'prune_cfg.calibration.recalibrate_bn needs data, but the config has no train_dataloader'
        )


def renew_batch_norms(cfg: Config, pruner: Pruner, models: list[nn.Module]) -> None:
    """Recalibrate the batch norms of each model on the same samples."""
    settings = pruner.calibration
    sampling = {**settings.sampling, 'num_samples': settings.recalibrate_bn}
    data = CalibrationData(cfg.train_dataloader, **sampling)
    for model in models:
        recalibrate(model, data)


def magnitude_masks(model: nn.Module, pruner: StructuredPruner) -> dict[str, Tensor]:
    """Masks of L1 weight-level pruning at the structured pruner's ratio, layer by layer.

    What the pruner's patterns protect stays whole here too.
    """
    weights = select_weights(prunable_weights(model), pruner.include, pruner.exclude)
    with torch.no_grad():
        return Magnitude().keep_masks(weights, pruner.budget.ratio)


def data_factory(cfg: Config, pruner: StructuredPruner) -> DataFactory:
    """What gives the config's calibration batches to a criterion that needs them."""

    def data(settings: CalibrationSettings) -> CalibrationData:
        if not cfg.get('train_dataloader'):
            raise UserError(
                f'prune_cfg.criterion {type(pruner.criterion).__name__} needs calibration data, but '
                'the config has no train_dataloader; use L1, L2 or Random'
            )
        return CalibrationData(cfg.train_dataloader, **settings.sampling)

    return data


def make_plan(cfg: Config, pruner: StructuredPruner, loaded: Loaded, options: Options) -> Plan:
    """Plan, taking scores from a table where one is given, and saving them where asked."""
    table = None
    if options.from_table:
        groups, _ = pruner.discover(loaded.model)
        table = read_scores(options.from_table, groups, loaded.before)
    plan = pruner.plan(loaded.model, data_factory(cfg, pruner), table)
    if not plan.state.reduced:
        raise UserError(
            f'prune_cfg.budget.ratio {pruner.budget.ratio} would remove nothing of this model; '
            'raise it'
        )
    if options.save_table:
        on_rank_0(lambda: save_table(plan, loaded.before, options.save_table))
    return plan


def save_table(plan: Plan, before: PruneState | None, path: str) -> None:
    """Save all scores."""
    try:
        UnitTable(plan, before).write_scores(path)
    except OSError as error:
        raise UserError(f'--save-table {path} cannot be written: {error.strerror}') from error


def removed_share(before: float | None, after: float | None) -> float | None:
    """The fraction removed, or None where it wasn't measured."""
    return None if not before or after is None else 1 - after / before


def start_report(
    cfg: Config,
    pruner: Pruner,
    options: Options,
    model: nn.Module,
    plan: Plan | None,
    profiles: list[dict[str, Any]],
    masks: dict[str, Tensor],
) -> dict[str, Any]:
    """The report so far: what was asked, and what is achieved by count."""
    dense, pruned = profiles[0], profiles[-1]
    achieved = {
        'params': removed_share(dense['params'], pruned['params']),
        'flops': removed_share(dense['flops'], pruned['flops']),
        'latency': removed_share(dense['latency_ms'], pruned['latency_ms']),
        'zeros': None,
    }
    if masks:
        total = sum(mask.numel() for mask in masks.values())
        achieved['zeros'] = 1 - sum(int(mask.sum()) for mask in masks.values()) / total
    groups = []
    for group in plan.groups if plan else []:
        kept = len(plan.state.kept[group.name])
        groups.append(
            dict(
                name=group.name,
                kind=group.kind,
                layer_idx=group.layer_idx,
                size=group.size,
                kept=kept,
            )
        )
    return {
        'asked': pruner.asked,
        'dense': {**dense, 'metrics': None},
        'pruned': {**pruned, 'metrics': None},
        'achieved': achieved,
        'headline': {},
        'groups': groups,
        'not_prunable': plan.refused if plan else {},
        'seconds': {},
        'config': cfg.filename,
        'checkpoint': options.checkpoint,
        'command': sys.argv,
        'notes': {
            'ratio': 'fraction removed, relative to the model given ("dense" here)',
            'flops': 'two per multiply-accumulate, one sample',
            'latency_ms': latency_note(pruner.profile, model),
            'zeros': 'fraction of the linear and convolution weights of <name>_pruned.pth; zeros '
            'bring no speed-up by themselves',
        },
        'environment': environment(),
    }


def masked_copy(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """A copy of ``model`` with masked weights set to zero."""
    model = deepcopy(model)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, keep in masks.items():
            parameters[name].mul_(keep)
    return model


def save_checkpoints(
    cfg: Config,
    pruner: Pruner,
    loaded: Loaded,
    slimmed: nn.Module | None,
    masked: nn.Module | None,
    masks: dict[str, Tensor],
    outcome: Outcome,
    options: Options,
) -> None:
    """Write ``<name>_pruned.pth`` and ``<name>_structured_pruned.pth`` (on rank 0)."""
    stem = file_stem(cfg, pruner)
    meta = {**plain_meta(loaded.checkpoint), **model_meta(loaded.model)}
    prune_cfg = cfg.get('prune_cfg')
    if prune_cfg:
        meta['prune_cfg'] = prune_cfg.to_dict()
    if slimmed is not None:
        state = compose(loaded.before, outcome.plan.state)
        state.achieved = dict(outcome.report['achieved'])
        outcome.structured = options.output_dir / f'{stem}_structured_pruned.pth'
        data = {
            'meta': {**meta, 'prune_state': state.to_dict()},
            'state_dict': cpu_weights(slimmed),
        }
        optimizer = carried_optimizer(cfg, loaded, slimmed, outcome.plan.state)
        if optimizer:
            data['optimizer'] = optimizer
        if dist.is_main_process():
            save_file(data, outcome.structured)
    if masks:
        outcome.weight_level = options.output_dir / f'{stem}_pruned.pth'
        data = {
            'meta': meta,
            'state_dict': cpu_weights(masked),
            'masks': pack_masks(masks),
        }
        if 'optimizer' in loaded.checkpoint:
            data['optimizer'] = loaded.checkpoint['optimizer']
        if dist.is_main_process():
            save_file(data, outcome.weight_level)


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


def write_report(outcome: Outcome, folder: Path) -> None:
    """Write ``report.json``, ``report.csv``, ``units.csv`` and the plots."""
    write_json(outcome.report, folder / 'report.json')
    if outcome.plan:
        write_groups(outcome.plan, folder / 'report.csv')
        UnitTable(outcome.plan, outcome.before).write_units(folder / 'units.csv')
    write_plots(outcome.report, folder)
