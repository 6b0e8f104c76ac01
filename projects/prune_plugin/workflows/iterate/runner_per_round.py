"""Iterative pruning with a Runner of its own for each round's training, or with no training.

Every round has a folder of its own, and ``history.json`` says which are over. A killed run
leaves complete files only, and resumes from the newest of them.
"""

import gc
import os
import shutil
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import asdict, replace
from pathlib import Path

from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import VISUALIZERS
from mmengine.visualization import Visualizer
from torch import nn

from ...checkpoints.checkpoint_file import load_file, newest_checkpoint, save_file
from ...checkpoints.model_loading import Loaded, load_model
from ...checkpoints.packed_masks import unpack_masks
from ...common.device import best_device
from ...common.distributed import barrier, from_rank_0, on_rank_0
from ...common.fileio import atomic_write, replace_symlink
from ...common.progress import expect, step
from ...common.time_left import Step
from ...common.timing import timed
from ...evaluation.profiling import profile
from ...evaluation.test_set import TestSet, headline
from ...methods.pruners import Pruner
from ...methods.pruners.execution import check_in_memory
from ...methods.pruners.layer_progress import LayerProgress
from ...methods.schedules import Round
from ...training.hooks.mask_hook import zero_share
from ...training.hooks.pruning_scalars_hook import log_round
from ...training.settings import RecoverySettings
from ..expected_steps import guessed, round_steps
from ..finished_layers import progress_key
from ..options import PruneOptions, PruneResult
from ..prune import check_config, data_factory, renew_batch_norms
from ..report_building import add_result, start_report
from ..reports.rounds import write_history
from ..round_record import Record, Row
from ..run_fingerprint import round_settings, rounds_fingerprint
from ..run_report import RecoveredStage, RunReport
from ..save_results import file_stem, save_pruned, write_report
from .machine import IterativePruning

#: Trains: (settings, pruned checkpoint, work directory, checkpoint to resume from or None).
Train = Callable[[RecoverySettings, Path, Path, Path | None], None]
#: What an earlier run's training leaves in the folder of a round.
LEFTOVERS = ('*.pth', '.*.pth.*', 'last_checkpoint')


def prune_in_rounds(
    cfg: Config, pruner: Pruner, options: PruneOptions, train: Train | None = None
) -> PruneResult:
    """Prune round by round as the schedule says, with training in between.

    All ranks call it; rank 0 alone writes.

    Args:
        cfg: The config.
        pruner: Its ``rounds`` say what happens.
        options: See :class:`PruneOptions`. With ``resume`` a killed run in ``output_dir`` is continued.
        train: Trains what a round has pruned; None: no training, the next round prunes what the
            last one left.

    Returns:
        The report, with the stages dense, pruned (the last round's pruning) and recovered; the last
        round's pruned checkpoint; its history is in ``report.rounds``.

    Raises:
        UserError: bad input; nothing has been written then.
        RuntimeError: training has not kept the zeros.
    """
    pruner.check_without_loop()
    check_in_memory(pruner.execution, 'pruning in rounds')
    return RunnerPerRound(cfg, pruner, options, train).run()


def scaled_lr(settings: RecoverySettings, factor: float) -> RecoverySettings:
    """The settings with ``factor`` times the learning rate."""
    if settings.lr_factor is not None:
        return replace(settings, lr_factor=settings.lr_factor * factor)
    if settings.lr is not None:
        return replace(settings, lr=settings.lr * factor)
    lora = dict(settings.lora or {})
    return replace(settings, lora={**lora, 'lr': lora['lr'] * factor})


def check_zeros(trained: dict, pruned: dict, where: Path) -> None:
    """Raise :class:`RuntimeError` unless training has kept the masks, and zeros where they say."""
    zero_share(trained)
    before, after = (unpack_masks(c.get('masks') or {}) for c in (pruned, trained))
    if before.keys() != after.keys() or any(not m.equal(after[n]) for n, m in before.items()):
        raise RuntimeError(f'{where}: training has changed the masks')


def clear(folder: Path, *patterns: str) -> None:
    """Remove files of an earlier run."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


class RunnerPerRound:
    """One run of :func:`prune_in_rounds`, which has the arguments; a :class:`Trainer`."""

    def __init__(self, cfg: Config, pruner: Pruner, options: PruneOptions, train: Train | None):
        self.cfg, self.pruner, self.options, self.train_round = cfg, pruner, options, train
        self.folder = options.output_dir
        self.file_name = f'{file_stem(cfg, pruner)}_pruned.pth'
        self.seconds: dict[str, float] = {}
        self.data = data_factory(cfg, pruner)
        self.loaded: Loaded | None = None
        self.visualizer: Visualizer | None = None

    def run(self) -> PruneResult:
        """See :func:`prune_in_rounds`."""
        expect([guessed('load')])
        self.loaded = self.load(self.options.checkpoint)
        dense = self.loaded.model
        expect([Step('profile', seconds=self.pruner.profile.seconds)])
        report = self.check(dense)
        self.test_set = TestSet(self.cfg)
        self.selection = self.pruner.select(dense)
        self.record = self.begin_record(dense)
        if self.record.rows:
            self.loaded = None
        del dense  # so that it isn't in memory while training
        rounds = self.pruner.rounds
        IterativePruning(rounds, self.selection, self.data, self, self.record).run()
        return self.result(report)

    def check(self, dense: nn.Module) -> RunReport:
        """Validate all input, and start the report."""
        for round_ in self.pruner.rounds:
            check_config(self.cfg, self.at(round_), dense)
        self.at(self.pruner.rounds[0]).check(dense, self.data)
        with timed(self.seconds, 'profile'):
            profiles = on_rank_0(lambda: profile([dense], self.pruner.profile))
        return start_report(self.cfg, self.pruner, self.options, dense, None, profiles)

    def at(self, round_: Round) -> Pruner:
        """The pruner with a round's settings."""
        pruner = copy(self.pruner)
        pruner.calibration, pruner.recovery = round_.calibration, round_.recovery
        return pruner

    def load(self, path: str | os.PathLike | None) -> Loaded:
        """The config's model with a checkpoint's weights."""
        with timed(self.seconds, 'load'):
            return load_model(self.cfg, None if path is None else str(path), best_device())

    def evaluate(self, model: nn.Module, label: str) -> dict[str, float] | None:
        """Metrics of a model."""
        with timed(self.seconds, 'evaluate'):
            return self.test_set.evaluate(model, label)

    def folder_of(self, round_: Round) -> Path:
        """The folder of a round."""
        return self.folder / f'round_{round_.number:02d}'

    def begin_record(self, dense: nn.Module) -> Record:
        """The record of the run to resume, or a new one after removing the files of old rounds."""
        path, rounds = self.folder / 'history.json', self.pruner.rounds
        key = rounds_fingerprint(
            self.cfg,
            self.options.checkpoint,
            [round_settings(round_) for round_ in rounds],
            self.train_round is not None,
        )
        if self.options.resume:
            record = on_rank_0(lambda: Record.load(path, key) if path.is_file() else None)
            if record is not None:
                over = sum(row.complete for row in record.rows)
                self.expect_rounds(over)
                print_log(f'going on after {over} of {len(rounds)} rounds', 'current')
                return record
            print_log(f'nothing to resume in {self.folder}: starting anew', 'current')
        if dist.is_main_process():
            path.unlink(missing_ok=True)
            for folder in self.folder.glob('round_[0-9]*'):
                clear(folder, 'progress/*.pth', *LEFTOVERS)
        self.expect_rounds(0)
        record = Record(dict(key.parts), len(rounds), self.evaluate(dense, 'dense'))
        record.headline = headline(self.test_set.metrics, record.dense or {})
        self.save(record)
        return record

    def expect_rounds(self, over: int) -> None:
        """Say which steps there will be, after the rounds that an earlier run has been through."""
        trains = self.train_round is not None
        expect(round_steps(self.pruner, self.test_set, trains, over))

    def save(self, record: Record) -> None:
        """See :class:`Trainer`."""
        if dist.is_main_process():
            record.save(self.folder / 'history.json')
            write_history(record, self.folder)
            if record.rows and record.rows[-1].complete:
                self.log(record.rows[-1])

    def log(self, row: Row) -> None:
        """Draw a round with the config's visualizer, if it has one, in a folder beside the rounds'."""
        if self.visualizer is None and self.cfg.get('visualizer'):
            settings = deepcopy(self.cfg.visualizer.to_dict())
            settings |= dict(name=f'rounds of {self.folder}', save_dir=str(self.folder / 'rounds'))
            self.visualizer = VISUALIZERS.build(settings)
        if self.visualizer is not None:
            log_round(self.visualizer, {**asdict(row), 'kept': row.kept}, row.round)

    def trained_model(self) -> nn.Module:
        """See :class:`Trainer`."""
        if self.loaded is None:
            self.loaded = self.load(self.folder / self.record.rows[-1].checkpoint)
            self.selection.restore({'kept': self.loaded.checkpoint['masks']})
        return self.loaded.model

    def rewind_point(self):
        """See :class:`Trainer`."""
        if not self.pruner.schedule.rewind:
            return None
        return self.load(self.options.checkpoint).model.state_dict()

    def progress(self, round_: Round) -> LayerProgress | None:
        """See :class:`Trainer`; files of an earlier run in the round's folder are removed."""
        folder = self.folder_of(round_)
        if dist.is_main_process():
            folder.mkdir(exist_ok=True)
            clear(folder, *LEFTOVERS)
            self.drop_optimizer()
        barrier()
        if not self.pruner.layer_by_layer:
            return None
        key = progress_key(self.cfg, self.pruner, self.options, round=round_settings(round_))
        return LayerProgress(folder / 'progress', key.parts, key.older)

    def begin(self, round_: Round, row: Row, model: nn.Module | None) -> None:
        """See :class:`Trainer`: save and evaluate what was pruned."""
        loaded, self.loaded = self.loaded, None
        assert loaded is not None  # it was pruned
        pruner = self.at(round_)
        if pruner.calibration.recalibrate_bn:
            renew_batch_norms(self.cfg, pruner, [loaded.model])
        loaded.checkpoint.pop('optimizer', None)  # every round begins with a fresh one
        pruned = self.selection.pruned(loaded.model)
        options = replace(self.options, output_dir=self.folder_of(round_))
        with timed(self.seconds, 'save'):
            save_pruned(self.cfg, self.pruner, loaded, pruned, None, options)
        barrier()
        row.after_prune = self.evaluate(loaded.model, f'after pruning {round_.number}')

    def train(self, round_: Round, row: Row) -> None:
        """See :class:`Trainer`."""
        folder = self.folder_of(round_)
        if dist.is_main_process():
            LayerProgress(folder / 'progress', {}).clear()
        if self.train_round is None:
            return
        settings = scaled_lr(round_.recovery, round_.lr_scale)
        newest = newest_checkpoint(folder) if dist.is_main_process() else None
        with timed(self.seconds, 'train'):
            self.train_round(settings, folder / self.file_name, folder, from_rank_0(newest))
        gc.collect()  # what the Runner leaves holds itself in a circle

    def finish(self, round_: Round, row: Row) -> None:
        """See :class:`Trainer`: check that masked weights are still zero, and evaluate."""
        folder = self.folder_of(round_)
        row.checkpoint = f'{folder.name}/{self.file_name}'
        if self.train_round is None:
            return
        if dist.is_main_process() and (newest := newest_checkpoint(folder)):
            replace_symlink(folder / 'latest.pth', newest.name)
        barrier()
        trained = self.load(folder / 'latest.pth')
        check_zeros(trained.checkpoint, load_file(folder / self.file_name), folder)
        row.after_training = self.evaluate(trained.model, f'after training {round_.number}')
        row.checkpoint = f'{folder.name}/latest.pth'
        if dist.is_main_process():
            replace_symlink(self.folder / 'latest.pth', row.checkpoint)

    def drop_optimizer(self) -> None:
        """Remove the optimizer's state, which nothing reads, from the last round's checkpoint."""
        rows = self.record.rows
        if not rows or self.train_round is None:
            return
        path = (self.folder / rows[-1].checkpoint).resolve()
        content = load_file(path)
        if content.pop('optimizer', None) is not None:
            save_file(content, path)

    def result(self, report: RunReport) -> PruneResult:
        """Copy the last round's checkpoint to the output folder, and write the report."""
        last, rows = self.pruner.rounds[-1], self.record.rows
        pruned = self.folder / self.file_name
        if dist.is_main_process():
            write_history(self.record, self.folder)  # a kill may have come before them
            with (
                open(self.folder_of(last) / self.file_name, 'rb') as source,
                atomic_write(pruned, 'wb') as target,
            ):
                shutil.copyfileobj(source, target)
        report.headline = self.record.headline
        report.dense.metrics = self.record.dense
        report.pruned.metrics = rows[-1].after_prune
        report.achieved['zeros'] = rows[-1].sparsity
        total = sum(size for _, size in self.selection.by_kind.values())
        kept = total - round(total * rows[-1].sparsity)
        add_result(report, self.pruner.budget.achieved(total, kept))
        report.rounds = rows
        report.seconds = self.seconds
        if self.train_round is not None:
            if dist.is_main_process():
                replace_symlink(self.folder / 'latest.pth', rows[-1].checkpoint)
            report.recovered = RecoveredStage(
                **report.dense.size,
                metrics=rows[-1].after_training,
                mode=last.recovery.mode,
                epochs=sum(round_.recovery.epochs for round_ in self.pruner.rounds),
                checkpoint=str(self.folder / 'latest.pth'),
                trained='unstructured',
                zeros=rows[-1].sparsity,
            )
        result = PruneResult(report, weight_level=pruned, test_set=self.test_set)
        if dist.is_main_process():
            with step('report'):
                write_report(result, self.folder)
        barrier()
        return result
