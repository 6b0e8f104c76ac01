"""Pruning a config's model into files: what ``tools/analysis_struct.py`` and ``train.py`` do."""

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from torch import Tensor, nn

from ..calibration.batch_norm import recalibrate
from ..calibration.data import CalibrationData
from ..calibration.settings import CalibrationSettings
from ..checkpoints.model_loading import Loaded, load_model
from ..common.distributed import on_rank_0
from ..common.errors import UserError
from ..common.timing import timed
from ..evaluation.profiling import profile
from ..evaluation.test_set import TestSet, headline
from ..methods.pruners import (
    DataFactory,
    Plan,
    Pruner,
    ScoredUnits,
    StructuredPruner,
    WeightPruner,
    build_pruner,
)
from ..methods.pruners.sparsify import Progress
from ..methods.sparsifiers import Magnitude
from ..structure.prunable_weights import prunable_weights, select_weights
from ..structure.prune_state import PruneState
from ..structure.slimming import slim
from ..training.distillation import targets_for
from .options import PruneOptions, PruneResult, SearchResult
from .ratio_search import Search, Trial, confirm
from .reports import UnitTable, read_scores
from .run_fingerprint import pruning_fingerprint
from .run_report import start_report, zeros_in
from .save_results import save_structured, save_weight_level, write_report


def pruner_from_config(cfg: Config, ratio: float | None = None) -> Pruner:
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
    if ratio is not None and hasattr(prune_cfg.get('budget', {}), 'items'):
        budget = {k: v for k, v in prune_cfg.get('budget', {}).items() if k != 'density'}
        prune_cfg['budget'] = {**budget, 'ratio': ratio}
    return build_pruner(prune_cfg)


def prune_to_files(cfg: Config, pruner: Pruner, options: PruneOptions) -> PruneResult:
    """Prune the config's model, evaluate before and after, and write everything down.

    All ranks call it; rank 0 alone writes.

    Args:
        cfg: The config.
        pruner: From :func:`pruner_from_config`.
        options: See :class:`PruneOptions`.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    if not options.dry_run:
        pruner.check_without_loop()
    seconds: dict[str, float] = {}
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    with timed(seconds, 'load'):
        loaded = load_model(cfg, options.checkpoint, device)
    check_before(cfg, pruner, loaded.model)
    search = Search(cfg, pruner, options) if pruner.budget.searched else None
    if isinstance(pruner, StructuredPruner):
        outcome = prune_units(cfg, pruner, loaded, options, seconds, search)
    else:
        outcome = prune_weights(cfg, pruner, loaded, options, seconds, search)
    if search and not options.dry_run:
        confirm(outcome.report, pruner.budget)
    steps = ('load', 'discover', 'calibrate', 'score', 'allocate', 'slim', 'save', 'evaluate')
    report = outcome.report
    report['seconds'] = {step: seconds.pop(step, 0.0) for step in steps} | seconds
    if not options.dry_run and dist.is_main_process():
        write_report(outcome, options.output_dir)
    dist.barrier()
    return outcome


def prune_units(
    cfg: Config,
    pruner: StructuredPruner,
    loaded: Loaded,
    options: PruneOptions,
    seconds: dict[str, float],
    search: Search | None = None,
) -> PruneResult:
    """Remove whole units: :func:`prune_to_files` for a StructuredPruner."""
    data, found = data_factory(cfg, pruner), None
    survey = survey_of(pruner, loaded, options, data)
    if search:
        with timed(seconds, 'search'):
            found = search.run(loaded.model, partial(unit_trial, cfg, loaded.model, survey, data))
        pruner = pruner.at(found.ratio)
    plan = make_plan(pruner, loaded, options, survey)
    seconds.update(plan.seconds)
    copied = deepcopy(loaded.model)
    if options.dry_run:
        slimmed = slim(copied, plan.state)
    else:
        slimmed = pruner.slim(copied, plan.state, data, seconds=seconds)
    with timed(seconds, 'profile'):
        models = [loaded.model, slimmed]
        profiles = on_rank_0(lambda: profile(models, pruner.profile, not options.dry_run))
    wanted = pruner.weight_level and not options.dry_run
    masks = magnitude_masks(loaded.model, pruner) if wanted else {}
    report = start_report(cfg, pruner, options, loaded.model, plan, profiles, masks)
    outcome = with_found(PruneResult(report, plan=plan, prior_state=loaded.prior_state), found)
    if options.dry_run:
        return outcome
    evaluate_stage(cfg, outcome, 'dense', loaded.model, seconds)
    with timed(seconds, 'slim'):  # the dense model isn't needed any more
        apply_masks(loaded.model, masks)
    if pruner.calibration.recalibrate_bn:
        with timed(seconds, 'recalibrate'):
            renew_batch_norms(cfg, pruner, [slimmed, *([loaded.model] if masks else [])])
    evaluate_stage(cfg, outcome, 'pruned', slimmed, seconds)
    with timed(seconds, 'save'):
        save_structured(cfg, pruner, loaded, slimmed, outcome, options)
        if masks:
            save_weight_level(cfg, pruner, loaded, loaded.model, masks, outcome, options)
    return outcome


def prune_weights(
    cfg: Config,
    pruner: WeightPruner,
    loaded: Loaded,
    options: PruneOptions,
    seconds: dict[str, float],
    search: Search | None = None,
) -> PruneResult:
    """Set single weights to zero, in place: :func:`prune_to_files` for a WeightPruner."""
    model, data, found = loaded.model, data_factory(cfg, pruner), None
    pruner.check(model, data)
    seen: dict[str, Any] = {}
    if search:
        with timed(seconds, 'search'):
            found = search.run(model, partial(weight_trial, cfg, model, seen, data))
        pruner = pruner.at(found.ratio)
    with timed(seconds, 'profile'):
        profiles = on_rank_0(lambda: profile([model], pruner.profile, not options.dry_run))
    report = start_report(cfg, pruner, options, model, None, profiles, {})
    outcome = with_found(PruneResult(report, prior_state=loaded.prior_state), found)
    if not options.dry_run:
        evaluate_stage(cfg, outcome, 'dense', model, seconds)
    progress = None
    if not options.dry_run and pruner.sparsifier.reads_inputs:
        progress = progress_in(options.output_dir / 'progress', cfg, pruner, options)
        if not options.resume:
            progress.clear()
    with timed(seconds, 'sparsify'):
        masks = pruner.sparsify(model, data, progress=progress, seen=seen)
    report['achieved']['zeros'] = zeros_in(masks)
    if options.dry_run:
        return outcome
    if pruner.calibration.recalibrate_bn:
        with timed(seconds, 'recalibrate'):
            renew_batch_norms(cfg, pruner, [model])
    evaluate_stage(cfg, outcome, 'pruned', model, seconds)
    with timed(seconds, 'save'):
        save_weight_level(cfg, pruner, loaded, model, masks, outcome, options)
    if progress:
        progress.clear()
    return outcome


def unit_trial(
    cfg: Config, model: nn.Module, survey: ScoredUnits, data: DataFactory, pruner: StructuredPruner
) -> Trial:
    """The slim model that a pruner makes of a copy."""
    plan = pruner.plan_from(model, survey)

    def build() -> tuple[nn.Module, float]:
        slimmed = pruner.slim(deepcopy(model), plan.state, data)
        if pruner.calibration.recalibrate_bn:
            renew_batch_norms(cfg, pruner, [slimmed])
        return slimmed, plan.removed

    return Trial(plan.state.digest() if plan.state.reduced else '', build)


def weight_trial(
    cfg: Config, model: nn.Module, seen: dict[str, Any], data: DataFactory, pruner: WeightPruner
) -> Trial:
    """The model with zeros that a pruner makes of a copy."""

    def build() -> tuple[nn.Module, float]:
        copied = deepcopy(model)
        masks = pruner.sparsify(copied, data, seen=seen)
        if pruner.calibration.recalibrate_bn:
            renew_batch_norms(cfg, pruner, [copied])
        return copied, zeros_in(masks)

    return Trial(f'{pruner.budget.ratio!r} of {pruner.budget.quantity}', build)


def with_found(outcome: PruneResult, found: SearchResult | None) -> PruneResult:
    """The outcome with what a search has found, if there was one."""
    if found:
        outcome.found, outcome.test_set = found, found.test_set
        outcome.report['search'] = found.report
    return outcome


def progress_in(
    folder: Path, cfg: Config, pruner: WeightPruner, options: PruneOptions, **more: Any
) -> Progress:
    """The finished layers in ``folder`` of a killed run like this one; ``more`` counts too."""
    found = pruning_fingerprint(
        cfg, options.checkpoint, pruner.budget.ratio, calibration_dataloader(cfg), **more
    )
    return Progress(folder, found.parts, found.older)


def evaluate_stage(
    cfg: Config, outcome: PruneResult, stage: str, model: nn.Module, seconds: dict[str, float]
) -> None:
    """Evaluate a model into ``outcome.report[stage]``."""
    with timed(seconds, 'evaluate'):
        if outcome.test_set is None:
            outcome.test_set = TestSet(cfg)
        metrics = outcome.found and outcome.found.metrics.get(stage)
        if metrics is None:
            metrics = outcome.test_set.evaluate(model, stage)
    report = outcome.report
    report[stage]['metrics'] = metrics
    if stage == 'dense' and metrics:
        report['headline'] = headline(outcome.test_set.metrics, metrics)
        searched = report.get('search')
        if searched and searched['metric'] in metrics:
            report['headline'][searched['metric']] = searched['better']


def check_before(cfg: Config, pruner: Pruner, model: nn.Module) -> None:
    """Raise :class:`UserError` for what the pruner's settings ask of config and model in vain."""
    if pruner.recovery.distill is not None:
        targets_for(model, pruner.recovery.distill.get('targets'))
    if pruner.calibration.recalibrate_bn and not calibration_dataloader(cfg):
        raise UserError(
            'prune_cfg.calibration.recalibrate_bn needs data, but the config has no train_dataloader'
        )
    compensation = getattr(pruner, 'compensation', None)
    if compensation is not None and not calibration_dataloader(cfg):
        raise UserError(
            f'prune_cfg.compensation {type(compensation).__name__} needs calibration data, but the '
            'config has no train_dataloader; leave it out'
        )


def calibration_dataloader(cfg: Config) -> dict | None:
    """The config's ``calibration_dataloader``, else its ``train_dataloader``."""
    return cfg.get('calibration_dataloader') or cfg.get('train_dataloader')


def renew_batch_norms(cfg: Config, pruner: Pruner, models: list[nn.Module]) -> None:
    """Recalibrate the batch norms of each model on the same samples."""
    settings = pruner.calibration
    sampling = {**settings.sampling, 'num_samples': settings.recalibrate_bn}
    data = CalibrationData(calibration_dataloader(cfg), **sampling)
    for model in models:
        recalibrate(model, data)


def magnitude_masks(model: nn.Module, pruner: StructuredPruner) -> dict[str, Tensor]:
    """Masks of L1 weight-level pruning at the structured pruner's ratio, layer by layer.

    What the pruner's patterns protect stays whole here too.
    """
    weights = select_weights(prunable_weights(model), pruner.include, pruner.exclude)
    with torch.no_grad():
        return Magnitude().keep_masks(weights, pruner.budget.ratio)


def data_factory(cfg: Config, pruner: Pruner) -> DataFactory:
    """What gives the config's calibration batches to a method that needs them.

    Asked again for the same samples, it gives the same batches without reading them anew.
    """
    made: dict[tuple, CalibrationData] = {}

    def data(settings: CalibrationSettings) -> CalibrationData:
        key = tuple(sorted(settings.sampling.items()))
        if key in made:
            return made[key]
        dataloader = calibration_dataloader(cfg)
        if not dataloader:
            structured = isinstance(pruner, StructuredPruner)
            method = pruner.criterion if structured else pruner.sparsifier
            key, others = (
                ('criterion', 'L1, L2 or Random') if structured else ('sparsifier', 'Magnitude')
            )
            raise UserError(
                f'prune_cfg.{key} {type(method).__name__} needs calibration data, but the config has '
                f'no train_dataloader; use {others}'
            )
        made.clear()
        made[key] = CalibrationData(dataloader, **settings.sampling)
        return made[key]

    return data


def survey_of(
    pruner: StructuredPruner, loaded: Loaded, options: PruneOptions, data: DataFactory
) -> ScoredUnits:
    """Survey, taking scores from a table where one is given."""
    table = None
    if options.from_table:
        groups, _ = pruner.discover(loaded.model)
        table = read_scores(options.from_table, groups, loaded.prior_state)
    return pruner.survey(loaded.model, data, table)


def make_plan(
    pruner: StructuredPruner, loaded: Loaded, options: PruneOptions, survey: ScoredUnits
) -> Plan:
    """Plan, saving the scores where asked."""
    plan = pruner.plan_from(loaded.model, survey)
    if not plan.state.reduced:
        raise UserError(
            f'prune_cfg.budget.ratio {pruner.budget.ratio} would remove nothing of this model; '
            'raise it'
        )
    if options.save_table:
        on_rank_0(lambda: save_table(plan, loaded.prior_state, options.save_table))
    return plan


def save_table(plan: Plan, before: PruneState | None, path: str) -> None:
    """Save all scores."""
    try:
        UnitTable(plan, before).write_scores(path)
    except OSError as error:
        raise UserError(f'--save-table {path} cannot be written: {error.strerror}') from error


@torch.no_grad()
def apply_masks(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Set masked weights to zero, in place."""
    parameters = dict(model.named_parameters())
    for name, keep in masks.items():
        parameters[name].mul_(keep)
