"""Pruning a config's model into files: what ``tools/analysis_struct.py`` and ``train.py`` do."""

import logging
from copy import deepcopy
from functools import partial

from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from ..calibration.batch_norm import recalibrate
from ..calibration.data import CalibrationData
from ..calibration.settings import CalibrationSettings
from ..checkpoints.model_loading import Loaded, load_model
from ..common.device import best_device
from ..common.distributed import barrier, on_rank_0
from ..common.errors import UserError
from ..common.progress import expect, step
from ..common.timing import timed
from ..evaluation.profiling import profile
from ..evaluation.test_set import TestSet, headline
from ..methods.pruners import DataFactory, Plan, Pruner, ScoredUnits, UnitPlan, build_pruner
from ..methods.pruners.execution import check_in_memory
from ..methods.pruners.layer_progress import LayerProgress
from ..methods.pruners.rescored import check_scores_given
from ..methods.pruners.rescoring import check_one_ratio
from ..structure.prune_state import PruneState
from ..training.distillation import targets_for
from ..training.dry_build import try_metrics
from .expected_steps import all_steps, guessed, scoring_steps, search_step
from .explorer_data import explorer_data
from .finished_layers import calibration_dataloader, finished_layers
from .latency_warnings import warn_of_missed_latency, warn_of_odd_widths
from .options import PruneOptions, PruneResult, SearchResult
from .ratio_search import Search, Trial, confirm
from .report_building import start_report, weight_rows
from .reports import UnitTable, read_scores
from .run_log import open_log
from .run_report import RunReport
from .save_results import save_pruned, write_report


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
        budget = dict(prune_cfg.get('budget', {}))
        if 'density' in budget:
            raise UserError(
                f'--pruning-ratio {ratio} is the fraction removed, and prune_cfg.budget.density '
                f'{budget["density"]} the fraction kept; give --cfg-options prune_cfg.budget.density=... '
                'instead, or take the key out of the config'
            )
        prune_cfg['budget'] = {**budget, 'ratio': ratio}
    return build_pruner(prune_cfg)


def prune(cfg: Config, pruner: Pruner, options: PruneOptions) -> PruneResult:
    """Prune the config's model on all ranks, evaluate before and after, and write (rank 0 alone).

    Args:
        cfg: The config.
        pruner: From :func:`pruner_from_config`.
        options: See :class:`PruneOptions`.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    if not options.dry_run:
        pruner.check_without_loop()
        check_one_ratio(pruner)
    seconds: dict[str, float] = {}
    budget, searched = pruner.searched, None
    loaded, data, search = prepare(cfg, pruner, options, seconds)
    test_set = None if options.dry_run else read_test_set(cfg, search, seconds)
    expect(all_steps(pruner, bool(options.from_table), search, test_set, loaded.model))
    scored = score(pruner, loaded, options, data)
    if search:
        with timed(seconds, 'search'):
            searched = search.run(loaded.model, partial(trial, cfg, loaded.model, scored, data))
        pruner = pruner.at(searched.ratio)
    scored.progress = progress = finished_layers(cfg, pruner, options)
    plan = make_plan(pruner, loaded, options, scored)
    run = Stages(cfg, pruner, loaded, options, seconds, searched, test_set)
    if not options.dry_run:
        open_log(options.output_dir, cfg)
    seconds.update(plan.seconds)
    result = run.prune(plan, data, progress)
    if budget and not options.dry_run:
        confirm(result.report, budget)
    steps = ('load', 'discover', 'calibrate', 'score', 'allocate', 'slim', 'save', 'evaluate')
    result.report.seconds = {name: seconds.pop(name, 0.0) for name in steps} | seconds
    if not options.dry_run and dist.is_main_process():
        with step('report'):
            write_report(result, options.output_dir)
    barrier()
    return result


def search_ratio(cfg: Config, pruner: Pruner, options: PruneOptions) -> SearchResult:
    """Search for the largest ratio at which a metric still holds; no model is written.

    All ranks call it; rank 0 alone writes ``search.csv``, ``search.json`` and ``search.png``.

    Args:
        cfg: The config.
        pruner: One with ``budget=dict(type='metric', ...)``.
        options: See :class:`PruneOptions`; a dry run writes nothing.

    Raises:
        UserError: bad input, or no ratio that was tried holds.
    """
    if pruner.searched is None:
        raise UserError(
            f'prune_cfg.budget.type is {pruner.budget.quantity!r}, whose ratio is given; to search for '
            "one, take dict(type='metric', metric=..., max_drop=...)"
        )
    loaded, data, search = prepare(cfg, pruner, options, {})
    assert search is not None  # the budget is searched
    expect([*scoring_steps(pruner, bool(options.from_table)), search_step(search)])
    scored = score(pruner, loaded, options, data)
    with step('search'):
        return search.run(loaded.model, partial(trial, cfg, loaded.model, scored, data))


def prepare(
    cfg: Config, pruner: Pruner, options: PruneOptions, seconds: dict[str, float]
) -> tuple[Loaded, DataFactory, Search | None]:
    """Load the model and validate everything: the model, its data, and a search if asked.

    Args:
        cfg: The config.
        pruner: The pruner.
        options: See :class:`PruneOptions`.
        seconds: Where to add the time of each step.
    """
    check_in_memory(pruner.execution, 'a dry run, a search or a training')
    expect([guessed('load')])
    with timed(seconds, 'load'):
        loaded = load_model(cfg, options.checkpoint, best_device())
    check_config(cfg, pruner, loaded.model, bool(options.from_table))
    budget, data = pruner.searched, data_factory(cfg, pruner)
    search = Search(cfg, pruner, budget, options) if budget else None
    pruner.check(loaded.model, data)
    return loaded, data, search


def read_test_set(cfg: Config, search: Search | None, seconds: dict[str, float]) -> TestSet:
    """The test data, so that what is wrong with it is said before anything is computed.

    Args:
        cfg: The config.
        search: Has it, if its trials see all of it.
        seconds: Where to add the time.
    """
    with step('read test data'), timed(seconds, 'evaluate'):
        test_set = search.test_set if search and search.budget.whole_test_set else TestSet(cfg)
        try_metrics('test_evaluator', test_set.metrics)
    return test_set


class Stages:
    """Makes, measures and saves the pruned model, and a second one to compare with.

    Args:
        cfg: The config.
        pruner: With the ratio to prune at.
        loaded: The model to prune.
        options: See :class:`PruneOptions`.
        seconds: Where to add the time of each step.
        searched: What a search for the ratio has found, if there was one.
        test_set: What to evaluate on; None in a dry run.
    """

    def __init__(
        self,
        cfg: Config,
        pruner: Pruner,
        loaded: Loaded,
        options: PruneOptions,
        seconds: dict[str, float],
        searched: SearchResult | None,
        test_set: TestSet | None,
    ):
        self.cfg, self.pruner, self.loaded, self.options = cfg, pruner, loaded, options
        self.seconds, self.searched, self.test_set = seconds, searched, test_set

    def prune(self, plan: Plan, data: DataFactory, progress: LayerProgress | None) -> PruneResult:
        """Evaluate the dense model, prune, measure, evaluate and save.

        Args:
            plan: What goes.
            data: Gives calibration batches.
            progress: Where finished layers are kept.
        """
        pruner, dense, dry_run = self.pruner, self.loaded.model, self.options.dry_run
        if not dry_run:
            self.options.output_dir.mkdir(parents=True, exist_ok=True)
        metrics = None if dry_run else self.evaluate('dense', dense)
        # Single weights become zero in place: a large model isn't held twice.
        target = deepcopy(dense) if pruner.removes_units else dense
        pruned = pruner.apply(
            target, plan, data, seconds=self.seconds, progress=progress, compensate=not dry_run
        )
        plan.scored.inputs.clear()  # large, and not needed in the training that may follow
        models = [dense, pruned.model] if pruner.removes_units else [dense]
        with timed(self.seconds, 'profile'):
            profiles = on_rank_0(lambda: profile(models, pruner.profile, not dry_run))
            if not dry_run and pruned.result is None:
                timing = {**vars(pruner.profile), 'example': plan.scored.example}
                remeasured = partial(pruner.budget.remeasured, dense, pruned.model, timing)
                pruned.result = on_rank_0(remeasured)
        warn_of_odd_widths(pruned.model, pruned.state)
        warn_of_missed_latency(pruned.result or plan.result, profiles)
        compared = None
        if not dry_run:
            with timed(self.seconds, 'slim'):  # the dense model isn't needed any more
                compared = pruner.comparison(dense)
        zeros = (compared or pruned).zeros
        report = start_report(
            self.cfg, pruner, self.options, dense, plan, profiles, zeros, pruned.result
        )
        report.weights = weight_rows((compared or pruned).masks)
        result = PruneResult(report, plan=plan, prior_state=self.loaded.prior_state)
        result.test_set = self.test_set
        if not dry_run and (units := plan.units) and dist.is_main_process():
            result.explorer = explorer_data(pruner, dense, units, profiles)
        if self.searched:
            report.search = self.searched.report
        if dry_run:
            return result
        self.set_headline(report, metrics)
        if pruner.calibration.recalibrate_bn:
            with timed(self.seconds, 'recalibrate'):
                models = [pruned.model, *([compared.model] if compared else [])]
                renew_batch_norms(self.cfg, pruner, models)
        report.pruned.metrics = self.evaluate('pruned', pruned.model)
        with timed(self.seconds, 'save'):
            for made in (pruned, compared):
                if made:
                    result.add(
                        save_pruned(self.cfg, pruner, self.loaded, made, report, self.options)
                    )
        if progress:
            progress.clear()
        return result

    def evaluate(self, stage: str, model: nn.Module) -> dict[str, float] | None:
        """Metrics of a model, unless the search has them."""
        with timed(self.seconds, 'evaluate'):
            assert self.test_set is not None  # no dry run
            known = self.searched.metrics if self.searched else {}
            return known[stage] if stage in known else self.test_set.evaluate(model, stage)

    def set_headline(self, report: RunReport, metrics: dict[str, float] | None) -> None:
        """Put the dense model's metrics into the report, and which of them to look at first."""
        report.dense.metrics = metrics
        if not metrics or self.test_set is None:
            return
        report.headline = headline(self.test_set.metrics, metrics)
        searched = report.search
        if searched and searched['metric'] in metrics:
            report.headline[searched['metric']] = searched['better']


def trial(
    cfg: Config, model: nn.Module, scored: ScoredUnits, data: DataFactory, pruner: Pruner
) -> Trial:
    """The model that a pruner makes of a copy."""
    plan = pruner.plan_from(model, scored)

    def build() -> tuple[nn.Module, float]:
        pruned = pruner.apply(deepcopy(model), plan, data)
        if pruner.calibration.recalibrate_bn:
            renew_batch_norms(cfg, pruner, [pruned.model])
        return pruned.model, (pruned.result or plan.result).achieved or 0.0

    return Trial(plan.digest, build)


def check_config(cfg: Config, pruner: Pruner, model: nn.Module, scored: bool = False) -> None:
    """Raise :class:`UserError` if config or model lack what the pruner's settings need.

    Args:
        cfg: The config.
        pruner: The pruner.
        model: The config's model.
        scored: Whether scores are given.
    """
    if pruner.recovery.distill is not None:
        targets_for(model, pruner.recovery.distill.get('targets'))
    if calibration_dataloader(cfg):
        return
    if pruner.calibration.recalibrate_bn:
        raise UserError(
            'prune_cfg.calibration.recalibrate_bn needs data, but the config has no train_dataloader'
        )
    for user in pruner.data_users(scored):
        raise UserError(
            f'{user.what} needs calibration data, but the config has no train_dataloader; '
            f'{user.instead}'
        )


def renew_batch_norms(cfg: Config, pruner: Pruner, models: list[nn.Module]) -> None:
    """Recalibrate the batch norms of each model on the same samples."""
    settings = pruner.calibration
    sampling = {**settings.sampling, 'num_samples': settings.recalibrate_bn}
    data = CalibrationData(calibration_dataloader(cfg) or {}, **sampling)  # check_config looked
    for model in models:
        recalibrate(model, data)


def data_factory(cfg: Config, pruner: Pruner) -> DataFactory:
    """A function that returns the calibration batches of the config for given settings.

    The batches of the last settings are cached.
    """
    made: dict[tuple, CalibrationData] = {}

    def data(settings: CalibrationSettings) -> CalibrationData:
        key = tuple(sorted(settings.sampling.items()))
        if key in made:
            return made[key]
        dataloader = calibration_dataloader(cfg)
        if not dataloader:
            user = pruner.data_users()[0]
            raise UserError(
                f'{user.what} needs calibration data, but the config has no train_dataloader; '
                f'{user.instead}'
            )
        made.clear()
        made[key] = CalibrationData(dataloader, **settings.sampling)
        if (found := sum(map(len, made[key].batches))) < settings.num_samples:
            print_log(
                f'prune_cfg.calibration.num_samples is {settings.num_samples}, but the training data '
                f'holds {found}: all of them are used',
                'current',
                logging.WARNING,
            )
        return made[key]

    return data


def score(pruner: Pruner, loaded: Loaded, options: PruneOptions, data: DataFactory) -> ScoredUnits:
    """Score a model, taking scores from a table where one is given."""
    table = None
    check_scores_given(pruner, bool(options.from_table or options.save_table))
    if options.from_table:
        groups, _ = pruner.discover(loaded.model)
        table = read_scores(options.from_table, groups, loaded.prior_state)
    return pruner.score(loaded.model, data, table)


def make_plan(pruner: Pruner, loaded: Loaded, options: PruneOptions, scored: ScoredUnits) -> Plan:
    """Plan, saving the scores where asked.

    Raises:
        UserError: nothing would be removed.
    """
    plan = pruner.plan_from(loaded.model, scored)
    if not plan.digest:
        raise UserError(
            f'prune_cfg.budget.ratio {pruner.budget.ratio} would remove nothing of this model; '
            'raise it'
        )
    if (path := options.save_table) and (units := plan.units):
        on_rank_0(lambda: save_table(units, loaded.prior_state, path))
    return plan


def save_table(plan: UnitPlan, prior_state: PruneState | None, path: str) -> None:
    """Save all scores."""
    try:
        UnitTable(plan, prior_state).write_scores(path)
    except OSError as error:
        raise UserError(f'--save-table {path} cannot be written: {error.strerror}') from error
